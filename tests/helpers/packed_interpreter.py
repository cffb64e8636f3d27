"""Runs the Triton kernels of packed weights on CPU tensors in Triton's interpreter, in a process of its own."""

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from helpers.packed_cases import FORMATS, error, packed, signs

from bitdistiller.kernels.triton.packed import multiply


def main() -> None:
    """Every format, groups of 64 and 192, rows that fill no tile, 1 and 17 rows of x, float32 and float16."""
    cases = 0
    matrices = [packed(name, 50, 576, size) for name, size in zip(FORMATS, (64, 192) * 3, strict=True)]
    for matrix, values in (*matrices, signs(50, 576), signs(33, 1024)):
        for count in (1, 17):
            for dtype, limit in ((torch.float32, 2e-6), (torch.float16, 2e-3)):
                x = torch.randn(count, matrix.filled, generator=torch.Generator().manual_seed(1)).to(dtype)
                found = multiply(x, matrix)
                assert found.dtype == dtype
                assert error(found, x, values) < limit, (matrix.bits, count, dtype)
                cases += 1
    sys.stdout.write(f"{cases} cases equal\n")


if __name__ == "__main__":
    main()
