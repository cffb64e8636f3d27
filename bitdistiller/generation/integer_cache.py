"""A KV cache in integers, for models whose keys and values are quantised before rotary position embedding (LLM-QAT)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicCache, DynamicLayer

from bitdistiller.config.mixed import OFF
from bitdistiller.errors import InputError
from bitdistiller.generation.token_rows import Rotations, TokenCodes
from bitdistiller.layers import MixedLinear

PROBE = 4
"""Tokens on which a model is tried."""
HOOKED = "_tells_integer_cache"
_FITS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


class IntegerCache(Cache):
    """
    Keys and values as the codes of `formats.symmetric_codes`, packed densely, with one scale for each token.

    What attention sees is made of them layer by layer, with the arithmetic of `MixedLinear` and of the model's own
    rotary embedding, so logits are those of a cache of dense values, bit for bit. Works wherever transformers takes
    `past_key_values`: forward passes, `generate`, beam search, batches with padding on the left.
    """

    def __init__(self, model: Any) -> None:
        """Raises InputError for a model whose cache is not quantised, or whose attention is not known here."""
        attentions = _attentions(model)
        self.rotations = Rotations()
        super().__init__(layers=[IntegerLayer(attention, self.rotations) for attention in attentions])
        for attention in attentions:
            if not hasattr(attention, HOOKED):
                attention.register_forward_pre_hook(_before, with_kwargs=True)
                setattr(attention, HOOKED, attention.register_forward_hook(_after))

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and rotary embeddings."""
        return sum(rows.nbytes for rows in (self.rotations, *self._codes))

    def reset(self) -> None:
        for rows in (self.rotations, *self._codes):
            rows.clear()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._choose(lambda rows: rows[beam_idx.to(rows.device)])

    def batch_select_indices(self, indices: Tensor) -> None:
        self._choose(lambda rows: rows[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._choose(lambda rows: rows.repeat_interleave(repeats, dim=0))

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove:
            for rows in (self.rotations, *self._codes):
                rows.change(lambda tensor: tensor[:, : -abs(tokens_to_remove)])

    @property
    def _codes(self) -> list[TokenCodes]:
        return [codes for layer in self.layers for codes in (layer.key_codes, layer.value_codes)]

    def _choose(self, how: Callable[[Tensor], Tensor]) -> None:
        """Apply `how` to the rows of sequences; rotations may be one row for all."""
        for codes in self._codes:
            codes.change(how)
        self.rotations.change_rows(how)


class IntegerLayer(DynamicLayer):
    """
    One layer's keys and values; `attention` tells it the outputs of its layers before they are quantised.

    What changes all layers alike (beams, rows, crops) is done by the cache.
    """

    def __init__(self, attention: Any, rotations: Rotations) -> None:
        super().__init__()
        self.attention, self.rotations = attention, rotations
        self.rotate: Callable[..., tuple[Tensor, Tensor]] = _rotation_of(attention)
        bits = attention.k_proj.bits.cache
        self.key_codes, self.value_codes = TokenCodes(bits), TokenCodes(bits)
        self.checked = False

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """
        All keys and values (batch, heads, tokens, head dimension); the arguments are the newest, in the same shape.

        Raises InputError where the first keys and values are not what the integers give.
        """
        self.is_initialized = True
        keys, values = self._keys(), self._heads(self.value_codes)
        if not self.checked:
            new = key_states.shape[-2]
            same = torch.equal(keys[..., -new:, :], key_states) and torch.equal(values[..., -new:, :], value_states)
            if not same:
                raise InputError(
                    f"{_name(self.attention)}: keys or values are not those of its layers; no integer cache"
                )
            self.checked = True
        return keys, values

    def _keys(self) -> Tensor:
        if self.rotations.length != self.key_codes.length:
            raise InputError(f"{_name(self.attention)}: layers have positions of their own; no integer cache")
        keys = self._heads(self.key_codes, getattr(self.attention, "k_norm", None))
        cos, sin = self.rotations.tensors
        turned = cos.shape[-1]  # of a head: the first part alone where rotary embedding is partial
        first, rest = keys[..., :turned], keys[..., turned:]
        first = self.rotate(first, first, cos, sin)[1]
        return torch.cat([first, rest], dim=-1) if rest.shape[-1] else first

    def _heads(self, codes: TokenCodes, norm: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        heads = codes.values().unflatten(-1, (-1, self.attention.head_dim))
        return (heads if norm is None else norm(heads)).transpose(1, 2)

    def get_seq_length(self) -> int:
        return self.key_codes.length


def inference_cache(model: Any) -> IntegerCache | None:
    """A new integer cache where the model's cache is quantised and can be kept so; None leaves it to transformers."""
    if model not in _FITS:
        _FITS[model] = _fits(model)
    return IntegerCache(model) if _FITS[model] else None


def cache_bytes(cache: Any) -> int:
    """Bytes of a cache's tensors."""
    if isinstance(cache, IntegerCache):
        return cache.nbytes
    tensors = [getattr(layer, name, None) for layer in getattr(cache, "layers", ()) for name in ("keys", "values")]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@torch.inference_mode()
def _fits(model: Any) -> bool:
    """Whether it works on a few tokens."""
    tokens = torch.arange(1, 1 + PROBE, device=model.device).unsqueeze(0) % model.config.vocab_size
    try:
        model(input_ids=tokens, past_key_values=IntegerCache(model), logits_to_keep=1)
    except InputError:
        return False
    return True


def _attentions(model: Any) -> list[Any]:
    """The attention of every layer, in order."""
    names = ("k_proj", "v_proj")
    found = [
        module
        for module in model.modules()
        if all(isinstance(getattr(module, name, None), MixedLinear) and getattr(module, name).cached for name in names)
    ]
    kind = model.config.model_type
    if not found or found[0].k_proj.bits.cache == OFF:
        raise InputError(f"model type {kind}: its KV cache is not quantised; an integer cache is for method llm-qat")
    found.sort(key=lambda attention: attention.layer_idx)
    layers = DynamicCache(config=model.config).layers
    if not all(map(_known, found)) or len(found) != len(layers) or set(map(type, layers)) != {DynamicLayer}:
        raise InputError(f"model type {kind}: an integer cache needs full rotary attention in every layer")
    return found


def _known(attention: Any) -> bool:
    """Whether keys are made of the layer's output as here: heads, a norm of each if there is one, rotation."""
    norm, head = getattr(attention, "k_norm", None), getattr(attention, "head_dim", None)
    per_head = norm is None or getattr(getattr(norm, "weight", None), "shape", None) == (head,)
    return head is not None and per_head and _rotation_of(attention) is not None


def _rotation_of(attention: Any) -> Any:
    return getattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb", None)


def _before(attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before every forward pass of an attention: where its outputs go, and at which positions they are."""
    cache = kwargs.get("past_key_values")
    _after(attention)
    if isinstance(cache, IntegerCache):
        layer = cache.layers[attention.layer_idx]
        attention.k_proj.keep, attention.v_proj.keep = layer.key_codes.append, layer.value_codes.append
        layer.rotations.append(kwargs["position_embeddings"])


def _after(attention: Any, *_: Any) -> None:
    """After it: nothing of a cache stays in the model."""
    attention.k_proj.keep = attention.v_proj.keep = None


def _name(attention: Any) -> str:
    return f"model type {attention.config.model_type}, layer {attention.layer_idx}"
