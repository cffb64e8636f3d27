"""Symmetric integer formats (docs/method.md 1); the same arithmetic as formats/symmetric.py."""

import triton
import triton.language as tl

from bitdistiller.kernels.triton.common import (
    clamp,
    group_ends,
    load_groups,
    round_even,
    round_scale,
    store_groups,
    store_scales,
    tile,
)


@triton.jit
def forward_kernel(
    weight_pointer,
    output_pointer,
    scale_pointer,
    count,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    LEVELS: tl.constexpr,
    EPSILON: tl.constexpr,
    GATE: tl.constexpr,
    ROUND_SCALE: tl.constexpr,
):
    """Values of ROWS groups, and their scales."""
    start, offsets, inside = tile(count, SIZE, ROWS, COLUMNS)
    weight = load_groups(weight_pointer + start * SIZE, offsets, inside)
    maximum, minimum = group_ends(weight, SIZE, COLUMNS)
    largest = tl.maximum(tl.abs(maximum), tl.abs(minimum), propagate_nan=tl.PropagateNan.ALL) + EPSILON
    scale = round_scale(tl.div_rn(tl.full(largest.shape, LEVELS, tl.float32), largest), ROUND_SCALE)
    codes = clamp(round_even(weight * scale), -LEVELS, LEVELS)
    values = tl.div_rn(codes, tl.broadcast_to(scale + EPSILON, codes.shape))
    store_groups(output_pointer + start * SIZE, offsets, values, inside)
    store_scales(scale_pointer, scale, start, count, 0, 1, ROWS)


@triton.jit
def backward_kernel(
    weight_pointer,
    upstream_pointer,
    output_pointer,
    count,
    SCALE_GRAD: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    LEVELS: tl.constexpr,
    EPSILON: tl.constexpr,
    GATE: tl.constexpr,
    ROUND_SCALE: tl.constexpr,
):
    """Gradients of ROWS groups: the upstream one, gated."""
    start, offsets, inside = tile(count, SIZE, ROWS, COLUMNS)
    weight = load_groups(weight_pointer + start * SIZE, offsets, inside)
    upstream = load_groups(upstream_pointer + start * SIZE, offsets, inside)
    gradient = tl.where(tl.abs(weight) < GATE, upstream, 0.0)
    store_groups(output_pointer + start * SIZE, offsets, gradient, inside)
