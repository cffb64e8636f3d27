"""
Products with packed weights (`kernels.packed`): one kernel for a vector, one for up to 64 of them.

Every weight's code costs three instructions where levels are equidistant: a shift, a mask that also sets the exponent,
and a multiply-add. The float with the code as its highest mantissa bits is `1 + q / 2^bits`, so that the sum over a
group is `2^bits (sum f x - sum x)`; zero point and scale follow once for 64 columns. Other levels are looked up.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from bitdistiller.kernels.packed.lanes import CHUNK, STRETCH, block_columns, words_of
from bitdistiller.kernels.packed.matrix import PackedMatrix

ROWS = {"vector": 32, "matrix": 64}
"""Rows of the weight that one program multiplies."""
BATCH = 16
"""Rows of x that one program of the matrix kernel multiplies with."""


@triton.jit
def code_at(w0, w1, w2, BITS: tl.constexpr, PLACE: tl.constexpr, TO: tl.constexpr):
    """The code number PLACE of every lane, its lowest bit at TO; other bits are anything."""
    FIRST: tl.constexpr = BITS * PLACE // 32
    BIT: tl.constexpr = BITS * PLACE % 32
    low, high = w0, w1
    if FIRST == 1:
        low, high = w1, w2
    if FIRST == 2:
        low = w2
    if BIT + BITS > 32:  # it lies in two words
        both = ((low >> BIT) & ((1 << (32 - BIT)) - 1)) | (high << (32 - BIT))
        moved = both << TO
    else:
        moved = low << (TO - BIT) if TO >= BIT else low >> (BIT - TO)
    return moved


@triton.jit
def load_words(pointer, offsets, inside, WORDS: tl.constexpr):
    """The words of a block for every lane, (rows, 16) each; the second and third are the first where there is one."""
    w0 = tl.load(pointer + offsets, mask=inside, other=0)
    w1, w2 = w0, w0
    if WORDS == 3:
        w1 = tl.load(pointer + offsets + 16, mask=inside, other=0)
        w2 = tl.load(pointer + offsets + 32, mask=inside, other=0)
    return w0, w1, w2


@triton.jit
def looked_up(levels_pointer, code, negative, positive):
    """The level of every code times the scale of its sign."""
    level = tl.load(levels_pointer + code)
    return level * tl.where(level < 0, negative[:, None], positive[:, None])


@triton.jit
def group_numbers(scale_pointer, zero_pointer, place, exists, SCALES: tl.constexpr, HAS_ZERO: tl.constexpr):
    """First scale, last scale and zero point of a group of every row, float32 (rows,)."""
    first = tl.load(scale_pointer + place * SCALES, mask=exists, other=0.0)
    last = tl.load(scale_pointer + place * SCALES + SCALES - 1, mask=exists, other=0.0)
    zero = first * 0.0
    if HAS_ZERO:
        zero = tl.load(zero_pointer + place, mask=exists, other=0).to(tl.float32)
    return first, last, zero


@triton.jit
def vector_kernel(
    x_pointer,
    codes_pointer,
    scale_pointer,
    zero_pointer,
    levels_pointer,
    output_pointer,
    rows,
    BITS: tl.constexpr,
    WORDS: tl.constexpr,
    PARTS: tl.constexpr,
    STRETCHES: tl.constexpr,
    PER_GROUP: tl.constexpr,
    SCALES: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    EQUIDISTANT: tl.constexpr,
    START: tl.constexpr,
    STEP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One row of x: output (n, rows), program (rows / ROWS, n)."""
    BLOCKS: tl.constexpr = (STRETCHES + PARTS - 1) // PARTS
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, 16)
    total = tl.zeros((ROWS, 16), tl.float32)
    for block in range(BLOCKS):
        offsets = (row * (BLOCKS * WORDS * 16) + block * WORDS * 16)[:, None] + lane[None, :]
        w0, w1, w2 = load_words(codes_pointer, offsets, (row < rows)[:, None], WORDS)
        for part in tl.static_range(PARTS):
            stretch = block * PARTS + part
            there = stretch < STRETCHES
            place = row * (STRETCHES // PER_GROUP) + stretch // PER_GROUP
            first, last, zero = group_numbers(
                scale_pointer, zero_pointer, place, (row < rows) & there, SCALES, HAS_ZERO
            )
            weighted = tl.zeros((ROWS, 16), tl.float32)
            plain = tl.zeros((16,), tl.float32)
            for c in tl.static_range(4):
                column = stretch * 64 + c * 16 + lane
                x = tl.load(x_pointer + n * (STRETCHES * 64) + column, mask=lane < 16 * there, other=0.0)
                x = x.to(tl.float32)
                if EQUIDISTANT:
                    code = code_at(w0, w1, w2, BITS, part * 4 + c, 23 - BITS)
                    bits = (code & (((1 << BITS) - 1) << (23 - BITS))) | 0x3F800000
                    weighted += bits.to(tl.float32, bitcast=True) * x[None, :]
                    plain += x
                else:
                    code = code_at(w0, w1, w2, BITS, part * 4 + c, 0) & ((1 << BITS) - 1)
                    weighted += looked_up(levels_pointer, code, first, last) * x[None, :]
            if EQUIDISTANT:
                slope = first * (STEP * (1 << BITS))
                offset = first * (START - zero) - slope
                weighted = slope[:, None] * weighted + offset[:, None] * plain[None, :]
            total += weighted
    tl.store(output_pointer + n * rows + row, tl.sum(total, axis=1), mask=row < rows)


@triton.jit
def matrix_kernel(
    x_pointer,
    codes_pointer,
    scale_pointer,
    zero_pointer,
    levels_pointer,
    output_pointer,
    rows,
    count,
    BITS: tl.constexpr,
    WORDS: tl.constexpr,
    PARTS: tl.constexpr,
    STRETCHES: tl.constexpr,
    PER_GROUP: tl.constexpr,
    SCALES: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    EQUIDISTANT: tl.constexpr,
    START: tl.constexpr,
    STEP: tl.constexpr,
    ROWS: tl.constexpr,
    BATCH: tl.constexpr,
):
    """
    BATCH rows of x on tensor cores: output (count, rows), program (rows / ROWS, count / BATCH).

    Equidistant codes are multiplied as integers, which every dtype holds; other values are rounded to that of x.
    """
    BLOCKS: tl.constexpr = (STRETCHES + PARTS - 1) // PARTS
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1).to(tl.int64) * BATCH + tl.arange(0, BATCH)
    lane = tl.arange(0, 16)
    kind: tl.constexpr = x_pointer.dtype.element_ty
    total = tl.zeros((BATCH, ROWS), tl.float32)
    for block in range(BLOCKS):
        offsets = (row * (BLOCKS * WORDS * 16) + block * WORDS * 16)[:, None] + lane[None, :]
        w0, w1, w2 = load_words(codes_pointer, offsets, (row < rows)[:, None], WORDS)
        for part in tl.static_range(PARTS):
            stretch = block * PARTS + part
            there = stretch < STRETCHES
            place = row * (STRETCHES // PER_GROUP) + stretch // PER_GROUP
            first, last, zero = group_numbers(
                scale_pointer, zero_pointer, place, (row < rows) & there, SCALES, HAS_ZERO
            )
            weighted = tl.zeros((BATCH, ROWS), tl.float32)
            plain = tl.zeros((BATCH,), tl.float32)
            for c in tl.static_range(4):
                column = stretch * 64 + c * 16 + lane
                inside = (n < count)[:, None] & (lane < 16 * there)[None, :]
                x = tl.load(x_pointer + n[:, None] * (STRETCHES * 64) + column[None, :], mask=inside, other=0.0)
                code = code_at(w0, w1, w2, BITS, part * 4 + c, 0) & ((1 << BITS) - 1)
                if EQUIDISTANT:
                    value = code.to(tl.float32).to(kind)
                    plain += tl.sum(x.to(tl.float32), axis=1)
                else:
                    value = looked_up(levels_pointer, code, first, last).to(kind)
                weighted += tl.dot(x, tl.trans(value), input_precision="ieee")
            if EQUIDISTANT:
                slope, offset = first * STEP, first * (START - zero)
                weighted = weighted * slope[None, :] + plain[:, None] * offset[None, :]
            total += weighted
    inside = (n < count)[:, None] & (row < rows)[None, :]
    tl.store(output_pointer + n[:, None] * rows + row[None, :], total, mask=inside)


def multiply(x: Tensor, weight: PackedMatrix) -> Tensor:
    """`x @ weight.T` for x (n, filled columns), in the dtype of x."""
    x, count = x.contiguous(), len(x)
    output = torch.empty(count, weight.rows, dtype=torch.float32, device=x.device)
    tensors = (x, weight.codes, weight.scale, _or_any(weight.zero_point, weight), weight.levels, output, weight.rows)
    if count == 1:
        grid = (triton.cdiv(weight.rows, ROWS["vector"]), count)
        vector_kernel[grid](*tensors, **constants(weight), ROWS=ROWS["vector"], num_warps=4)
    else:
        grid = (triton.cdiv(weight.rows, ROWS["matrix"]), triton.cdiv(count, BATCH))
        matrix_kernel[grid](*tensors, count, **constants(weight), ROWS=ROWS["matrix"], BATCH=BATCH, num_warps=4)
    return output.to(x.dtype)


def constants(weight: PackedMatrix) -> dict[str, Any]:
    """What both kernels are compiled for."""
    levels = weight.points
    step = levels[1] - levels[0]
    equidistant = weight.scale.shape[-1] == 1 and all(p == levels[0] + step * i for i, p in enumerate(levels))
    return {
        "BITS": weight.bits,
        "WORDS": words_of(weight.bits),
        "PARTS": block_columns(weight.bits) // STRETCH,
        "STRETCHES": weight.filled // STRETCH,
        "PER_GROUP": weight.group_size // STRETCH,
        "SCALES": weight.scale.shape[-1],
        "HAS_ZERO": weight.zero_point is not None,
        "EQUIDISTANT": equidistant,
        "START": levels[0],
        "STEP": step,
    }


def _or_any(zero_point: Tensor | None, weight: PackedMatrix) -> Tensor:
    """A pointer that is not read where there are no zero points."""
    return weight.codes if zero_point is None else zero_point


assert (CHUNK, STRETCH) == (16, 64)
