"""Keys and values of the running sequences: one buffer of fixed size a layer, one row a sequence."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicCache, DynamicLayer

ARGUMENTS = {"input_ids", "position_ids", "attention_mask", "past_key_values", "logits_to_keep"}


def fits(model: Any) -> bool:
    """
    Whether a model can run on `Slots`: each layer keeps keys and values of all tokens, and it takes its positions and
    its mask from outside. Sliding windows, states of linear attention and ALiBi do not fit.
    """
    known = getattr(model, "_can_compile_fullgraph", False)  # transformers: works on a cache of fixed buffers
    if not known or model.config._attn_implementation not in ("sdpa", "eager") or getattr(model.config, "alibi", False):
        return False
    layers = DynamicCache(config=model.config).layers
    return set(map(type, layers)) == {DynamicLayer} and set(inspect.signature(model.forward).parameters) >= ARGUMENTS


class Frame:
    """
    What all layers do in a forward pass: the rows and columns of their buffers that it writes and reads.

    The buffers are (rows, key-value heads, width, head dimension); token i of a sequence is in column i of its row, and
    the running sequences are the first rows.
    """

    def __init__(self, rows: int, width: int) -> None:
        self.rows, self.width = rows, width
        self.prefill(0)

    def prefill(self, first: int) -> None:
        """The next forward pass brings whole prompts, for row `first` and those behind it."""
        self.first, self.used = first, 0
        self.positions: torch.Tensor | None = None

    def decode(self, positions: torch.Tensor, used: int) -> None:
        """The next forward pass brings token `positions[i]` to row i; all of them lie in the first `used` columns."""
        self.positions, self.used = positions, used
        self._targets: dict[int, torch.Tensor] = {}

    def target(self, heads: int) -> torch.Tensor:
        """Where those tokens lie among all (row, head, column): int64 (rows x heads)."""
        assert self.positions is not None
        if heads not in self._targets:
            first = torch.arange(len(self.positions) * heads, device=self.positions.device) * self.width
            self._targets[heads] = first + self.positions.repeat_interleave(heads)
        return self._targets[heads]


class Slots:
    """The buffers of all layers; nothing refers back to them, so their memory is free as soon as they are not used."""

    def __init__(self, model: Any, rows: int, width: int) -> None:
        self.frame = Frame(rows, width)
        self.layers = [SlotLayer(self.frame) for _ in DynamicCache(config=model.config).layers]
        self.cache = Cache(layers=self.layers)

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copy the first `length` tokens of some rows over others."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                for source, target in zip(sources, targets, strict=True):
                    buffer[target, :, :length] = buffer[source, :, :length]


class SlotLayer(DynamicLayer):
    """One layer's buffers."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make the buffers, of zeros: what a mask hides is multiplied by 0 and must be finite."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            states.new_zeros(self.frame.rows, states.shape[1], self.frame.width, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep states (sequences, heads, tokens, dimension); returns what their queries look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        frame, count = self.frame, len(key_states)
        if frame.positions is None:
            new = slice(frame.first, frame.first + count)
            self.keys[new, :, : key_states.shape[2]] = key_states
            self.values[new, :, : value_states.shape[2]] = value_states
            return key_states, value_states
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            dimension = states.shape[3]
            target = frame.target(states.shape[1])
            buffer.view(-1, dimension).index_copy_(0, target, states.reshape(-1, dimension))
        return self.keys[:count, :, : frame.used], self.values[:count, :, : frame.used]

    def get_seq_length(self) -> int:
        """Tokens before those of the forward pass."""
        return max(self.frame.used - 1, 0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the queries look at, and the first of them."""
        return self.frame.used or query_length, 0
