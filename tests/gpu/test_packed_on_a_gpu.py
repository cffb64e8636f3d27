"""The Triton kernels of packed weights on a CUDA device."""

import pytest
import torch
from helpers.packed_cases import FORMATS, error, packed, signs

from bitdistiller.kernels.packed import multiply
from bitdistiller.kernels.packed import values as values_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("count", [1, 2, 16, 40, 100])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_products_are_those_of_the_values(dtype, limit, count):
    matrices = [packed(name, 300, 1152, size, "cuda") for name in FORMATS for size in (64, 128)]
    for matrix, values in (*matrices, signs(300, 1000, "cuda")):
        assert torch.equal(values_of(matrix).double(), values)
        x = torch.randn(count, matrix.columns, device="cuda", generator=torch.Generator("cuda").manual_seed(1)).to(
            dtype
        )
        assert error(multiply(x, matrix), x, values) < limit
