"""Quantisers of LLM-QAT (arXiv 2305.17888) for weights, activations and the KV cache: one scale for each row.

All work in float32 (float64 for float64 input) and return the dtype of their input. A row is the last dimension: an
output channel of a weight (out, in), a token of activations (batch, tokens, features).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bitdistiller.config.mixed import OFF
from bitdistiller.errors import InputError
from bitdistiller.formats.grid import require_finite
from bitdistiller.formats.symmetric import EPSILON, GATE
from bitdistiller.kernels.eager import arithmetic_dtype

ASYMMETRIC_EPSILON = 1e-8
CLAMP = 0.99


def symmetric_fake_quantize(x: Tensor, bits: int) -> Tensor:
    """
    `s = (2^(b-1) - 1) / (max|x| + 1e-6)`, `x_hat = round(x s) / (s + 1e-6)`, for each row of x (..., n).

    The gradient passes where `-2 < x < 2`, and none flows through the scale. With 1 bit every value is 0.
    """
    return _Gated.apply(x, _symmetric(x, bits))


def symmetric_codes(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """
    The integers of `symmetric_fake_quantize` for x (..., n): codes (..., n) int16 in `-(2^(b-1) - 1) .. 2^(b-1) - 1`.

    With them the scale `s` (..., 1) of each row, float32 (float64 for float64 input). For 2 to 16 bits.
    """
    values = x.detach().to(arithmetic_dtype(x.dtype))
    scale = _scale(values, bits)
    return (values * scale).round().to(torch.int16), scale


def largest_level(bits: int) -> int:
    """`2^(b-1) - 1`, the largest of `symmetric_codes`; as codes without a sign count, it is their zero."""
    return 2 ** (bits - 1) - 1


def symmetric_values(codes: Tensor, scale: Tensor) -> Tensor:
    """What `symmetric_codes` stand for, in the dtype of the scale; equal to `symmetric_fake_quantize`."""
    return codes.to(scale.dtype) / (scale + EPSILON)


def asymmetric_fake_quantize(x: Tensor, bits: int) -> Tensor:
    """
    `x_hat = round((x - m) / r n) / n r + m` with `m = min x`, `r = max x - m + 1e-8`, `n = 2^b - 1`, for each row.

    The gradient is that of `symmetric_fake_quantize`.
    """
    values = x.detach().to(arithmetic_dtype(x.dtype))
    low = values.amin(-1, keepdim=True)
    span = values.amax(-1, keepdim=True) - low + ASYMMETRIC_EPSILON
    steps = 2**bits - 1
    return _Gated.apply(x, ((values - low) / span * steps).round() / steps * span + low)


def llm_qat_weight(weight: Tensor, bits: int) -> Tensor:
    """
    The rule for weights (out, in) by bit width.

    32 and more: as they are; 3 to 31: `symmetric_fake_quantize`; 2: four levels, at a quarter and three quarters of
    `a = 2 mean|w|` on both sides of zero; 1: `a sign(w)` with `a = mean|w|`. With 1 and 2 bits the gradient passes
    everywhere. A row of zeros stays zeros with 1 bit.
    """
    if bits >= OFF:
        return weight
    if bits >= 3:
        return symmetric_fake_quantize(weight, bits)
    values = weight.detach().to(arithmetic_dtype(weight.dtype))
    mean = values.abs().mean(-1, keepdim=True)
    if bits == 1:
        return _Passed.apply(weight, mean * values.sign())
    scale = 2 * mean
    return _Passed.apply(weight, scale * ((_quarter_steps(values, scale) + 0.5) / 2))


def channel_codes(weight: Tensor, bits: int, name: str = "weight") -> tuple[Tensor, Tensor]:
    """
    Codes (out, in) uint8 and scales (out,) float32 of a weight (out, in) under the rule of 1 to 8 bits.

    The scale is what weights are multiplied by (3 bits and more), or `a`. Raises InputError, naming the layer, for
    infinite weights and NaN, and with 1 bit for weights of exactly 0, which have no code.
    """
    values = weight.detach().float()
    if bits >= 3:
        codes, scale = symmetric_codes(values, bits)
        codes = codes + largest_level(bits)
    elif bits == 2:
        scale = 2 * values.abs().mean(-1, keepdim=True)
        codes = _quarter_steps(values, scale) + 2
    else:
        scale = values.abs().mean(-1, keepdim=True)
        codes = (values < 0).float()
    require_finite(scale, name)
    if bits == 1 and bool((values == 0).any()):
        raise InputError(f"{name}: {int((values == 0).sum())} weights are exactly 0, whose sign has no bit")
    return codes.to(torch.uint8), scale.squeeze(-1)


def channel_values(codes: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The values (out, in) float32 of `channel_codes`, equal to those of `llm_qat_weight`."""
    column, steps = scale.unsqueeze(-1), codes.float()
    if bits >= 3:
        return symmetric_values(steps - largest_level(bits), column)
    return column * ((steps - 2 + 0.5) / 2 if bits == 2 else 1 - 2 * steps)


def _symmetric(x: Tensor, bits: int) -> Tensor:
    values = x.detach().to(arithmetic_dtype(x.dtype))
    scale = _scale(values, bits)
    return symmetric_values((values * scale).round(), scale)


def _scale(values: Tensor, bits: int) -> Tensor:
    """(..., 1): what the values of a row are multiplied by."""
    return largest_level(bits) / (values.abs().amax(-1, keepdim=True) + EPSILON)


def _quarter_steps(values: Tensor, scale: Tensor) -> Tensor:
    """-2, -1, 0 or 1: the level of a value is half a step above them, in steps of half the scale (..., 1)."""
    ratio = torch.where(scale > 0, values / scale, 0.0).clamp(-CLAMP, CLAMP)
    return (ratio * 2 - 0.5).round()


class _Passed(torch.autograd.Function):
    """`values` in the dtype of x, with the gradient of x itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor) -> Tensor:
        return values.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None


class _Gated(torch.autograd.Function):
    """`values` in the dtype of x, with the gradient of x where `-2 < x < 2`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(x.abs() < GATE)
        return values.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream * ctx.saved_tensors[0], None
