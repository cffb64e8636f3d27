"""The compiled form against the eager one."""

import pytest
import torch
from helpers.kernel_cases import assert_same, formats, run, weights

from bitdistiller import kernels
from bitdistiller.errors import InputError
from bitdistiller.formats import get_format

pytestmark = pytest.mark.skipif(not kernels.can_compile(), reason="no C++ compiler that works")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_format_equals_its_eager_form(dtype):
    for number_format in formats():
        weight = weights(dtype)
        assert_same(
            run("compiled", number_format, weight, 128), run("eager", number_format, weight, 128), number_format
        )


def test_other_shapes_and_options():
    number_format = get_format("int3", "bfloat16")
    for rows in (2, 7, 300):
        weight = torch.randn(rows, 256, generator=torch.Generator().manual_seed(rows))
        for options in ({"scale_grad": False}, {"dtype": torch.bfloat16}):
            expected = run("eager", number_format, weight, 64, **options)
            assert_same(run("compiled", number_format, weight, 64, **options), expected, number_format)


def test_float64_stays_float64():
    weight = weights().double()
    assert_same(run("compiled", get_format("nf3"), weight, 128), run("eager", get_format("nf3"), weight, 128), "nf3")


def test_infinities_and_nan_name_the_layer():
    for bad in (float("inf"), float("nan")):
        weight = weights()
        weight[3, 5] = bad
        for name in ("int2", "nf3", "sym4"):
            with kernels.using("compiled"), pytest.raises(InputError, match="up: infinite or NaN weights in 1 of 13"):
                get_format(name).fake_quantize(weight, 128, name="up")
