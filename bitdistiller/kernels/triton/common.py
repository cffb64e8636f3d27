"""What the kernels of all formats share: whole groups in registers, and arithmetic that rounds as torch does."""

import triton
import triton.language as tl


@triton.jit
def tile(count, SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """First of the ROWS groups of this program, offsets (ROWS, COLUMNS) from its first weight, and which exist."""
    start = tl.program_id(0).to(tl.int64) * ROWS
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (rows < count - start)[:, None] & (columns < SIZE)[None, :]
    return start, rows[:, None] * SIZE + columns[None, :], inside


@triton.jit
def load_groups(pointer, offsets, inside):
    """Weights (ROWS, COLUMNS) as float32, 0 where there are none."""
    return tl.load(pointer + offsets, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def group_ends(weight, SIZE: tl.constexpr, COLUMNS: tl.constexpr):
    """The largest and smallest weight of each group, (ROWS, 1); NaN where the group is not finite."""
    filled = (tl.arange(0, COLUMNS) < SIZE)[None, :]
    broken = tl.max(tl.where(filled & ((weight - weight) != 0.0), 1, 0), axis=1) > 0
    maximum = tl.max(tl.where(filled, weight, float("-inf")), axis=1)
    minimum = tl.min(tl.where(filled, weight, float("inf")), axis=1)
    maximum = tl.where(broken, float("nan"), maximum)
    minimum = tl.where(broken, float("nan"), minimum)
    return maximum[:, None], minimum[:, None]


@triton.jit
def round_even(x):
    """The nearest integer, ties to the even one, for float32 of any size."""
    below = tl.floor(x)
    fraction = x - below
    odd = (below - 2.0 * tl.floor(below * 0.5)) == 1.0
    return tl.where((fraction > 0.5) | ((fraction == 0.5) & odd), below + 1.0, below)


@triton.jit
def round_bfloat16(x):
    """Finite float32 rounded to bfloat16, ties to even, as float32; Triton's interpreter would cut the bits off."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)


@triton.jit
def round_scale(scale, ROUND_SCALE: tl.constexpr):
    """Scales rounded to bfloat16 where the format stores them so."""
    if ROUND_SCALE:
        scale = round_bfloat16(scale)
    return scale


@triton.jit
def store_groups(pointer, offsets, values, inside):
    """Values (ROWS, COLUMNS), rounded once to the dtype of the tensor."""
    if pointer.dtype.element_ty == tl.bfloat16:
        values = round_bfloat16(values)
    tl.store(pointer + offsets, values.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def clamp(x, lowest, highest):
    """torch.clamp, for finite x."""
    return tl.minimum(tl.maximum(x, lowest), highest)


@triton.jit
def add_to_ends(gradient, weight, inside, end, share):
    """Add the share of an end (ROWS, 1) to the weights that equal it, split evenly among ties."""
    tied = tl.where(inside & (weight == end), 1.0, 0.0)
    return gradient + tied * tl.div_rn(share, tl.maximum(tl.sum(tied, axis=1), 1.0)[:, None])


@triton.jit
def store_scales(pointer, scale, start, count, index: tl.constexpr, scales: tl.constexpr, ROWS: tl.constexpr):
    """Scale number `index` of `scales` of each group; scale (ROWS, 1)."""
    rows = tl.arange(0, ROWS)[:, None]
    tl.store(pointer + start * scales + rows * scales + index, scale, mask=rows < count - start)
