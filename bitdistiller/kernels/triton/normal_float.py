"""Two-sided normal-float formats (docs/method.md 1); the same arithmetic as formats/normal_float.py."""

import triton
import triton.language as tl

from bitdistiller.kernels.triton.common import (
    add_to_ends,
    group_ends,
    load_groups,
    round_scale,
    store_groups,
    store_scales,
    tile,
)


@triton.jit
def _ratio(weight, below, above):
    """Weights over the scale of their own side (0 where it is 0), and that scale."""
    scale = tl.where(weight < 0.0, below, above)
    return tl.div_rn(weight, tl.where(scale == 0.0, 1.0, scale)), scale


@triton.jit
def _snap(
    ratio,
    NEGATIVE_LEVELS: tl.constexpr,
    NEGATIVE_BOUNDARIES: tl.constexpr,
    POSITIVE_LEVELS: tl.constexpr,
    POSITIVE_BOUNDARIES: tl.constexpr,
):
    """The level of each ratio; levels grow outwards, so the last reached stays."""
    level = tl.zeros_like(ratio)
    for i in tl.static_range(len(NEGATIVE_LEVELS)):
        level = tl.where(ratio < NEGATIVE_BOUNDARIES[i], NEGATIVE_LEVELS[i], level)
    for i in tl.static_range(len(POSITIVE_LEVELS)):
        level = tl.where(ratio >= POSITIVE_BOUNDARIES[i], POSITIVE_LEVELS[i], level)
    return level


@triton.jit
def forward_kernel(
    weight_pointer,
    output_pointer,
    scale_pointer,
    count,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    NEGATIVE_LEVELS: tl.constexpr,
    NEGATIVE_BOUNDARIES: tl.constexpr,
    POSITIVE_LEVELS: tl.constexpr,
    POSITIVE_BOUNDARIES: tl.constexpr,
    ROUND_SCALE: tl.constexpr,
):
    """Values of ROWS groups, and their two scales."""
    start, offsets, inside = tile(count, SIZE, ROWS, COLUMNS)
    weight = load_groups(weight_pointer + start * SIZE, offsets, inside)
    maximum, minimum = group_ends(weight, SIZE, COLUMNS)
    below, above = round_scale(tl.abs(minimum), ROUND_SCALE), round_scale(tl.abs(maximum), ROUND_SCALE)
    ratio, scale = _ratio(weight, below, above)
    values = _snap(ratio, NEGATIVE_LEVELS, NEGATIVE_BOUNDARIES, POSITIVE_LEVELS, POSITIVE_BOUNDARIES) * scale
    store_groups(output_pointer + start * SIZE, offsets, values, inside)
    store_scales(scale_pointer, below, start, count, 0, 2, ROWS)
    store_scales(scale_pointer, above, start, count, 1, 2, ROWS)


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
    NEGATIVE_LEVELS: tl.constexpr,
    NEGATIVE_BOUNDARIES: tl.constexpr,
    POSITIVE_LEVELS: tl.constexpr,
    POSITIVE_BOUNDARIES: tl.constexpr,
    ROUND_SCALE: tl.constexpr,
):
    """Gradients of ROWS groups."""
    start, offsets, inside = tile(count, SIZE, ROWS, COLUMNS)
    weight = load_groups(weight_pointer + start * SIZE, offsets, inside)
    gradient = load_groups(upstream_pointer + start * SIZE, offsets, inside)
    if SCALE_GRAD:
        maximum, minimum = group_ends(weight, SIZE, COLUMNS)
        below, above = round_scale(tl.abs(minimum), ROUND_SCALE), round_scale(tl.abs(maximum), ROUND_SCALE)
        ratio, _ = _ratio(weight, below, above)
        level = _snap(ratio, NEGATIVE_LEVELS, NEGATIVE_BOUNDARIES, POSITIVE_LEVELS, POSITIVE_BOUNDARIES)
        error = tl.where(inside, (level - ratio) * gradient, 0.0)
        from_above = tl.sum(tl.where(weight >= 0.0, error, 0.0), axis=1)[:, None]
        from_below = tl.sum(tl.where(weight < 0.0, error, 0.0), axis=1)[:, None]
        positive = tl.where(maximum > 0.0, from_above, tl.where(maximum < 0.0, -from_above, 0.0))
        negative = tl.where(minimum > 0.0, from_below, tl.where(minimum < 0.0, -from_below, 0.0))
        gradient = add_to_ends(gradient, weight, inside, maximum, positive)
        gradient = add_to_ends(gradient, weight, inside, minimum, negative)
    store_groups(output_pointer + start * SIZE, offsets, gradient, inside)
