"""Weights on which every form of every formula must agree."""

import itertools

import torch

from bitdistiller import kernels
from bitdistiller.formats import format_names, get_format

GROUP_SIZES = (8, 100, 128)


def weights(dtype=torch.float32, group_size=128, device="cpu"):
    """Rows of ordinary groups, and rows of groups of one sign, constant, zero, tied, tiny and huge."""
    generator = torch.Generator().manual_seed(group_size)
    weight = torch.randn(13, 2 * group_size, generator=generator) * 0.05
    weight[1] = weight[1].abs() + 0.01
    weight[2] = -weight[2].abs() - 0.01
    weight[3] = 0.3
    weight[4] = 0.0
    weight[5] = (weight[5] * 40).round() / 40
    weight[6] *= 1e-5
    weight[7] *= 1e4
    weight[8, ::2] = 0.0
    weight[9] = weight[9].clamp(max=0)
    return weight.to(dtype).to(device)


def formats():
    """Every number format with both scale precisions, and the reference's range."""
    pairs = itertools.product(format_names(), ("float32", "bfloat16"))
    return [get_format(name, scale_dtype) for name, scale_dtype in pairs] + [get_format("int2", reference_range=True)]


def run(choice, number_format, weight, group_size, scale_grad=True, dtype=None):
    """(values, gradient) with one form of the formula."""
    weight = weight.clone().requires_grad_()
    upstream = torch.linspace(-1, 2, weight.numel()).view(weight.shape).to(weight.device)
    with kernels.using(choice):
        values = number_format.fake_quantize(weight, group_size, scale_grad, dtype=dtype)
        values.backward(upstream.to(values.dtype))
    return values.detach(), weight.grad


def assert_same(ours, expected, number_format):
    """Values equal bit for bit; gradients to 1e-6 of the largest (sums over a group may differ in order)."""
    assert torch.equal(ours[0], expected[0]), number_format
    largest = expected[1].abs().max().item()
    rounding = torch.finfo(expected[1].dtype).eps if expected[1].dtype != torch.float32 else 0
    torch.testing.assert_close(ours[1], expected[1], atol=1e-6 * max(1, largest), rtol=1e-6 + rounding)
