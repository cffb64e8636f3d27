"""Asymmetric integer formats (docs/method.md 1); the same arithmetic as formats/integer.py."""

import triton
import triton.language as tl

from bitdistiller.kernels.triton.common import (
    add_to_ends,
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
def _range(maximum, minimum, EXTEND: tl.constexpr):
    if EXTEND:
        maximum = tl.maximum(maximum, 0.0, propagate_nan=tl.PropagateNan.ALL)
        minimum = tl.minimum(minimum, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return maximum, minimum


@triton.jit
def _grid(
    maximum,
    minimum,
    LEVELS: tl.constexpr,
    MINIMUM_RANGE: tl.constexpr,
    EXTEND: tl.constexpr,
    ROUND_SCALE: tl.constexpr,
):
    """Scale and zero point, (ROWS, 1) each."""
    high, low = _range(maximum, minimum, EXTEND)
    span = tl.maximum(high - low, MINIMUM_RANGE, propagate_nan=tl.PropagateNan.ALL)
    scale = round_scale(tl.div_rn(span, tl.full(span.shape, LEVELS, tl.float32)), ROUND_SCALE)
    return scale, clamp(-round_even(tl.div_rn(low, scale)), 0.0, LEVELS)


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
    MINIMUM_RANGE: tl.constexpr,
    EXTEND: tl.constexpr,
    ROUND_SCALE: tl.constexpr,
):
    """Values of ROWS groups, and their scales."""
    start, offsets, inside = tile(count, SIZE, ROWS, COLUMNS)
    weight = load_groups(weight_pointer + start * SIZE, offsets, inside)
    maximum, minimum = group_ends(weight, SIZE, COLUMNS)
    scale, zero_point = _grid(maximum, minimum, LEVELS, MINIMUM_RANGE, EXTEND, ROUND_SCALE)
    steps = tl.broadcast_to(scale, weight.shape)
    codes = clamp(round_even(tl.div_rn(weight, steps)) + zero_point, 0.0, LEVELS)
    values = (codes - zero_point) * scale
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
    MINIMUM_RANGE: tl.constexpr,
    EXTEND: tl.constexpr,
    ROUND_SCALE: tl.constexpr,
):
    """Gradients of ROWS groups."""
    start, offsets, inside = tile(count, SIZE, ROWS, COLUMNS)
    weight = load_groups(weight_pointer + start * SIZE, offsets, inside)
    upstream = load_groups(upstream_pointer + start * SIZE, offsets, inside)
    maximum, minimum = group_ends(weight, SIZE, COLUMNS)
    scale, zero_point = _grid(maximum, minimum, LEVELS, MINIMUM_RANGE, EXTEND, ROUND_SCALE)
    ratio = tl.div_rn(weight, tl.broadcast_to(scale, weight.shape))
    unclamped = round_even(ratio) + zero_point
    codes = clamp(unclamped, 0.0, LEVELS)
    gradient = tl.where(unclamped == codes, upstream, 0.0)
    if SCALE_GRAD:
        error = codes - zero_point - tl.where(unclamped == codes, ratio, 0.0)
        slope = tl.sum(tl.where(inside, error * upstream, 0.0), axis=1)[:, None] / LEVELS
        high, low = _range(maximum, minimum, EXTEND)
        slope = tl.where(high - low >= MINIMUM_RANGE, slope, 0.0)
        gradient = add_to_ends(gradient, weight, inside, maximum, tl.where(high == maximum, slope, 0.0))
        gradient = add_to_ends(gradient, weight, inside, minimum, tl.where(low == minimum, -slope, 0.0))
    store_groups(output_pointer + start * SIZE, offsets, gradient, inside)
