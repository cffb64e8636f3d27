"""The clip search against the naive search on stored tokens."""

import pytest
import torch
from reference.clip import search_clip as naive_search

from bitdistiller.calibration import gram_matrix, search, search_clip
from bitdistiller.errors import InputError
from bitdistiller.formats import get_format


def layer(rows=12, columns=64, tokens=40, dtype=torch.float32, seed=0):
    """A weight, and inputs some of whose channels are much larger than others, as in language models."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=dtype) * 0.05
    scales = (3 * torch.randn(columns, generator=generator, dtype=dtype)).exp()
    return weight, torch.randn(tokens, columns, generator=generator, dtype=dtype) * scales


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["int2", "int3", "nf3"])
def test_equals_the_naive_search(name, dtype):
    weight, x = layer(dtype=dtype)
    high, low, error = naive_search(weight.double(), x.double(), name, 16)
    found = search(weight, gram_matrix(x, 16), get_format(name), 16)
    same = torch.isclose(found.maximum.double(), high) & torch.isclose(found.minimum.double(), low)
    assert found.maximum.shape == found.minimum.shape == (12, 4, 1)
    assert same.double().mean() >= 0.999
    torch.testing.assert_close(found.error_after.squeeze(-1).double() / len(x), error, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["int2", "nf3"])
def test_groups_of_one_sign_take_the_first_of_equal_candidates(name):
    weight, x = layer(rows=6, columns=32)
    weight[0].abs_()
    weight[1].abs_().neg_()
    weight[2] = 0.0
    weight[3] = 0.3
    weight[4, :16] = torch.linspace(0.98, 1.0, 16)
    weight[5, :16] = -torch.linspace(0.98, 1.0, 16)
    high, low, _ = naive_search(weight.double(), x.double(), name, 16)
    found = search_clip(weight, gram_matrix(x, 16), get_format(name), 16)
    torch.testing.assert_close(found[0].double(), high)
    torch.testing.assert_close(found[1].double(), low)


def test_blocks_do_not_change_the_result(monkeypatch):
    weight, x = layer(rows=37, columns=96)
    gram = gram_matrix(x, 32)
    whole = search(weight, gram, get_format("int2"), 32)
    for limit in (32, 10 * 32, 50 * 32):
        monkeypatch.setattr("bitdistiller.calibration.clip.CPU_CHUNK", limit)
        parts = search(weight, gram, get_format("int2"), 32)
        torch.testing.assert_close(parts.maximum, whole.maximum)
        torch.testing.assert_close(parts.error_after, whole.error_after)


def test_errors_and_ratios_describe_the_choice():
    weight, x = layer()
    found = search(weight, gram_matrix(x, 16), get_format("int2"), 16)
    groups = weight.view(12, 4, 16)
    torch.testing.assert_close(found.maximum, groups.amax(-1, keepdim=True) * found.maximum_ratio)
    torch.testing.assert_close(found.minimum, groups.amin(-1, keepdim=True) * found.minimum_ratio)
    assert (found.error_after <= found.error_before).all()
    change = (get_format("int2").fake_quantize(weight, 16) - weight).view(12, 4, 16)
    before = torch.einsum("tgc,rgc->rgt", x.view(-1, 4, 16), change).square().sum(-1, keepdim=True)
    torch.testing.assert_close(found.error_before, before, rtol=1e-4, atol=0)


def test_bfloat16_weights_and_scales():
    weight, x = layer()
    found = search_clip(weight.bfloat16(), gram_matrix(x, 16), get_format("int2", "bfloat16"), 16)
    assert found[0].dtype == torch.float32
    expected = search_clip(weight.bfloat16().float(), gram_matrix(x, 16), get_format("int2", "bfloat16"), 16)
    assert torch.equal(found[0], expected[0])


def test_bad_input_is_refused_by_layer():
    weight, x = layer()
    gram, number_format = gram_matrix(x, 16), get_format("int2")
    with pytest.raises(InputError, match=r"up: Gram of shape \(4, 16, 16\); expected \(2, 32, 32\)"):
        search_clip(weight, gram, number_format, 32, "up")
    with pytest.raises(InputError, match="up: infinite or NaN inputs reached this layer"):
        search_clip(weight, gram * float("nan"), number_format, 16, "up")
    weight[2, 3] = float("inf")
    with pytest.raises(InputError, match="up: infinite or NaN weights in 1 of 12 rows, first in row 2"):
        search_clip(weight, gram, number_format, 16, "up")
