"""Quantisers of LLM-QAT (arXiv 2305.17888) for weights, activations and the KV cache: one scale for each row.

All work in float32 (float64 for float64 input) and return the dtype of their input. A row is the last dimension: an
output channel of a weight (out, in), a token of activations (batch, tokens, features).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bitdistiller.formats.symmetric import EPSILON, GATE
from bitdistiller.kernels.eager import arithmetic_dtype

OFF = 32
"""From this many bits on nothing is quantised; 16 bits are."""
ASYMMETRIC_EPSILON = 1e-8
CLAMP = 0.99


def symmetric_fake_quantize(x: Tensor, bits: int) -> Tensor:
    """
    `s = (2^(b-1) - 1) / (max|x| + 1e-6)`, `x_hat = round(x s) / (s + 1e-6)`, for each row of x (..., n).

    The gradient passes where `-2 < x < 2`, and none flows through the scale. With 1 bit every value is 0.
    """
    return _Gated.apply(x, _symmetric(x, bits))


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
    scale, half = 2 * mean, 2 ** (bits - 1)
    ratio = torch.where(scale > 0, values / scale, 0.0).clamp(-CLAMP, CLAMP)
    return _Passed.apply(weight, scale * ((ratio * half - 0.5).round() + 0.5) / half)


def _symmetric(x: Tensor, bits: int) -> Tensor:
    values = x.detach().to(arithmetic_dtype(x.dtype))
    scale = (2 ** (bits - 1) - 1) / (values.abs().amax(-1, keepdim=True) + EPSILON)
    return (values * scale).round() / (scale + EPSILON)


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
