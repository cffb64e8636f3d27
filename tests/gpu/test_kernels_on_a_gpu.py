"""The Triton kernels on a CUDA device against the eager form on the same device."""

import pytest
import torch
from helpers.kernel_cases import GROUP_SIZES, assert_same, formats, run, weights

from bitdistiller import kernels
from bitdistiller.calibration import gram_matrix, search
from bitdistiller.formats import get_format

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_triton_equals_eager(dtype, group_size):
    weight = weights(dtype, group_size, "cuda")
    if dtype == torch.float16:
        weight = weight.clamp(-1, 1)
    for number_format in formats():
        for scale_grad in (True, False):
            expected = run("eager", number_format, weight, group_size, scale_grad)
            assert_same(run("triton", number_format, weight, group_size, scale_grad), expected, number_format)


def test_triton_is_chosen_by_itself_and_takes_large_weights():
    weight = torch.randn(4096, 11008, device="cuda", generator=torch.Generator("cuda").manual_seed(0)) * 0.02
    assert kernels.choose(get_format("int2"), weight.view(-1, 128)) == "triton"
    for name in ("int2", "nf3", "sym4"):
        number_format = get_format(name, "bfloat16")
        expected = run("eager", number_format, weight, 128, dtype=torch.bfloat16)
        assert_same(run("auto", number_format, weight, 128, dtype=torch.bfloat16), expected, number_format)


def test_the_clip_search_chooses_as_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(256, 512, generator=generator) * 0.02, torch.randn(300, 512, generator=generator)
    gram, number_format = gram_matrix(x, 128), get_format("int2", "bfloat16")
    cpu, gpu = search(weight, gram, number_format, 128), search(weight.cuda(), gram, number_format, 128)
    same = (cpu.maximum_ratio == gpu.maximum_ratio.cpu()) & (cpu.minimum_ratio == gpu.minimum_ratio.cpu())
    assert same.double().mean() >= 0.999
    torch.testing.assert_close(gpu.error_after.cpu(), cpu.error_after, rtol=1e-5, atol=0)
