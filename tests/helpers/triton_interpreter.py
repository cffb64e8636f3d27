"""Runs the Triton kernels on CPU tensors in Triton's interpreter, in a process of its own.

Exits with 1 and says which format differs from the eager form.
"""

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
import torch
from helpers.kernel_cases import GROUP_SIZES, assert_same, formats, run, weights

from bitdistiller import kernels
from bitdistiller.errors import InputError


def check_values_and_gradients() -> int:
    """Every format, weight dtype and group size, with and without the gradient of the scales."""
    count = 0
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for group_size in GROUP_SIZES:
            weight = weights(dtype, group_size)
            if dtype == torch.float16:
                weight = weight.clamp(-1, 1)
            for number_format in formats():
                for scale_grad in (True, False):
                    expected = run("eager", number_format, weight, group_size, scale_grad)
                    assert_same(run("triton", number_format, weight, group_size, scale_grad), expected, number_format)
                    count += 1
    return count


def check_output_dtype() -> None:
    """Float32 weights, values rounded once to bfloat16."""
    for number_format in formats():
        expected = run("eager", number_format, weights(), 128, dtype=torch.bfloat16)
        assert_same(run("triton", number_format, weights(), 128, dtype=torch.bfloat16), expected, number_format)


def check_refusals() -> None:
    """Infinities and NaN are noticed in the scales that the kernels write."""
    for bad in (float("inf"), -float("inf"), float("nan")):
        weight = weights()
        weight[3, 5] = bad
        for number_format in formats():
            with (
                kernels.using("triton"),
                pytest.raises(InputError, match=r"^up: infinite or NaN weights in 1 of 13 rows"),
            ):
                number_format.fake_quantize(weight, 128, name="up")


if __name__ == "__main__":
    cases = check_values_and_gradients()
    check_output_dtype()
    check_refusals()
    sys.stdout.write(f"{cases} cases equal\n")
