"""The linear layer of LLM-QAT (arXiv 2305.17888): weight, input and, for keys and values, output are fake-quantised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from bitdistiller.config import MixedBits
from bitdistiller.config.mixed import OFF
from bitdistiller.errors import InputError
from bitdistiller.formats import llm_qat_weight, symmetric_fake_quantize
from bitdistiller.layers.precision import product_dtype
from bitdistiller.layers.walk import quantized_linear_names

CACHED = ("k_proj", "v_proj")
"""Layers whose outputs the KV cache is made of, before rotary position embedding and before heads are told apart."""


class MixedLinear(nn.Linear):
    """
    `y = x_hat w_hat^T + bias`: `w_hat` by `formats.llm_qat_weight`, `x_hat` by `formats.symmetric_fake_quantize`.

    A layer with `cached` quantises its output too, one scale for all heads of a token. Quantisers work in float32, the
    product is in the dtype of x (or of autocast). With `bits.weights` 32 the weight is multiplied as it is: for
    inference with values that were quantised before.
    """

    bits: MixedBits
    cached: bool
    keep: Callable[[Tensor], None] | None = None
    """Gets the output (..., out) of a layer with `cached` before it is quantised: an integer cache sets it."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, bits: MixedBits, cached: bool) -> Self:
        """A layer of these tensors, which become its parameters unless they are already."""
        layer = cls(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        layer.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight)
        layer.bias = bias if bias is None or isinstance(bias, nn.Parameter) else nn.Parameter(bias)
        layer.bits, layer.cached = bits, cached
        return layer

    def forward(self, x: Tensor) -> Tensor:
        dtype = product_dtype(x)
        quantised = x if self.bits.activations == OFF else symmetric_fake_quantize(x, self.bits.activations)
        weight = llm_qat_weight(self.weight, self.bits.weights)
        bias = None if self.bias is None else self.bias.to(dtype)
        y = F.linear(quantised.to(dtype), weight.to(dtype), bias)
        if not self.cached or self.bits.cache == OFF:
            return y
        if self.keep is not None:
            self.keep(y)
        return symmetric_fake_quantize(y, self.bits.cache)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bits={'-'.join(map(str, self.bits))}, cached={self.cached}"


def is_cached(name: str) -> bool:
    """Whether a layer of this name makes keys or values."""
    return name.rpartition(".")[2] in CACHED


def check_cached(names: list[str], bits: MixedBits, kind: str) -> None:
    """Raises InputError where the cache is to be quantised of a model whose keys and values have no layers."""
    if bits.cache != OFF and not any(map(is_cached, names)):
        raise InputError(
            f"model type {kind}: no layers {' and '.join(CACHED)}, whose outputs the KV cache is made of; accepted: "
            f"{bits.weights}-{bits.activations}-{OFF}"
        )


def mix_linears(model: nn.Module, bits: MixedBits) -> list[str]:
    """Swap every linear layer of the decoder blocks for a MixedLinear, in place; returns their names."""
    names = quantized_linear_names(model)
    check_cached(names, bits, model.config.model_type)
    for name in names:
        linear = model.get_submodule(name)
        model.set_submodule(name, MixedLinear.of(linear.weight, linear.bias, bits, is_cached(name)))
    return names
