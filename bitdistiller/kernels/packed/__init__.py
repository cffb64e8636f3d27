"""Products with weights that stay packed: C++ on a CPU, Triton on a GPU, dequantised blocks elsewhere."""

from bitdistiller.kernels.packed.matrix import PackedMatrix, multiply

__all__ = ["PackedMatrix", "multiply"]
