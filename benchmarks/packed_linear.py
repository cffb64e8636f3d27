"""Products with packed weights beside bfloat16 and PyTorch's 4-bit kernel: `python benchmarks/packed_linear.py`.

Writes benchmarks/packed_linear.csv. Forms take turns, so that whatever else the machine does falls on all of them
alike; every call multiplies with another copy of the weight, so that none is read from a cache. Bandwidth counts the
bytes of the weight alone: codes, scales, zero points. The copy bandwidth is that of copying 256 MiB, read and written.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from measure import machine, number, seconds, timings, write_csv
from torch.nn import functional as F

from bitdistiller.formats import get_format
from bitdistiller.kernels.packed import PackedMatrix, multiply

SHAPES = {"cpu": ((4096, 4096),), "cuda": ((4096, 4096), (4096, 11008), (8192, 8192))}
"""Input and output features."""
BATCHES, GROUP, RUNS, CALLS = (1, 4, 16), 128, 9, 8
COLD_BYTES = 192 << 20
"""Bytes of all copies of a weight together: more than any cache."""
FORMATS = ("int2", "int3", "int4", "nf3")


@dataclass
class Form:
    """A way to multiply: its name, the bytes of a weight, and `multiply(x, number of the copy)`."""

    name: str
    nbytes: int
    multiply: Callable[[torch.Tensor, int], Any]


def main() -> None:
    """Measure on the CPU, and on a GPU where there is one."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        write_csv("packed_linear", (row for shape in SHAPES[device] for row in rows(device, *shape)))


def rows(device: str, columns: int, height: int) -> Iterator[dict[str, Any]]:
    """One row for each batch and form."""
    source, target = torch.ones(2, 256 << 18, device=device)
    copy = 2 * source.nbytes / seconds(lambda: target.copy_(source), RUNS)
    forms = list(all_forms(device, columns, height))
    for batch in BATCHES:
        x = torch.randn(batch, columns, generator=torch.Generator().manual_seed(0)).bfloat16().to(device)
        times: dict[str, list[float]] = {form.name: [] for form in forms}
        for turn in range(RUNS):
            for form in forms:
                times[form.name] += timings(partial(calls, form, x, turn), 1, warm_up=turn == 0)
        base = statistics.median(times["bf16"])
        for form in forms:
            time = statistics.median(times[form.name])
            rate = form.nbytes * CALLS / time
            yield {
                "device": device,
                "shape": f"{columns}x{height}",
                "batch": batch,
                "form": form.name,
                "bits_per_weight": number(8 * form.nbytes / columns / height),
                "microseconds": number(1e6 * time / CALLS),
                "times_faster_than_bf16": number(base / time),
                "gigabytes_per_second": number(rate / 1e9),
                "percent_of_copy_bandwidth": number(100 * rate / copy),
                "machine": machine(device),
            }


def calls(form: Form, x: torch.Tensor, turn: int) -> None:
    """Some calls, each with another copy of the weight."""
    for i in range(CALLS):
        form.multiply(x, turn * CALLS + i)


def all_forms(device: str, columns: int, height: int) -> Iterator[Form]:
    """bfloat16, packed formats, and the library's kernel for 4 bits."""
    weight = torch.randn(height, columns, generator=torch.Generator().manual_seed(1)) * 0.02
    dense = copies([weight.bfloat16().to(device)])
    yield Form("bf16", dense[0][0].nbytes, lambda x, i: F.linear(x, dense[i % len(dense)][0]))
    for name in FORMATS:
        yield packed(name, format_matrix(name, weight, device))
    signs = (weight < 0).to(torch.uint8).to(device)
    yield packed("signs", PackedMatrix.pack(signs, 1, torch.ones(height, 1, device=device), None, [1.0, -1.0], columns))
    yield from library(device, columns, height)


def format_matrix(name: str, weight: torch.Tensor, device: str) -> PackedMatrix:
    """The weight in a format."""
    number_format = get_format(name, "bfloat16")
    codes, scale, zero = (None if t is None else t.to(device) for t in number_format.quantize(weight, GROUP))
    levels = number_format.level_table() or [float(code) for code in range(2**number_format.bits)]
    return PackedMatrix.pack(codes, number_format.bits, scale, zero, levels, GROUP)


def packed(name: str, matrix: PackedMatrix) -> Form:
    """The kernels of the package."""
    parts = [matrix.codes, matrix.scale, *([] if matrix.zero_point is None else [matrix.zero_point])]
    shape = (matrix.bits, matrix.columns, matrix.filled, matrix.group_size, matrix.points)
    matrices = [
        PackedMatrix(*shape, copy[0], copy[1], copy[2] if len(copy) > 2 else None, matrix.levels)
        for copy in copies(parts)
    ]
    return Form(f"{name}, packed", sum(p.nbytes for p in parts), lambda x, i: multiply(x, matrices[i % len(matrices)]))


def library(device: str, columns: int, height: int) -> Iterator[Form]:
    """PyTorch's product with asymmetric 4-bit integers in groups, bfloat16 scales and zero points."""
    codes = torch.randint(16, (height, columns), dtype=torch.int32)
    numbers = torch.rand(columns // GROUP, height, 2).bfloat16().to(device)
    if device == "cpu":
        weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        kernel = torch.ops.aten._weight_int4pack_mm_for_cpu
    else:
        pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8).to(device)
        weight, kernel = torch.ops.aten._convert_weight_to_int4pack(pairs, 8), torch.ops.aten._weight_int4pack_mm
    weights = copies([weight, numbers])
    nbytes = height * columns // 2 + numbers.nbytes
    yield Form("int4, PyTorch", nbytes, lambda x, i: kernel(x, weights[i % len(weights)][0], GROUP, weights[0][1]))


def copies(parts: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Enough copies of the parts of a weight."""
    count = -(-COLD_BYTES // sum(part.nbytes for part in parts))
    return [[part.clone() for part in parts] for _ in range(count)]


if __name__ == "__main__":
    main()
