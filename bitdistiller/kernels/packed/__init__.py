"""Products with weights that stay packed: C++ on a CPU, Triton on a GPU, dequantised blocks elsewhere."""

from bitdistiller.kernels.packed.matrix import PackedMatrix
from bitdistiller.kernels.packed.product import multiply, values

__all__ = ["PackedMatrix", "multiply", "values"]
