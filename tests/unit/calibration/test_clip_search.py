"""The clip search against the naive search on stored tokens."""

import pytest
import torch
from reference.clip import error_of, search_clip_in_batches
from reference.clip import search_clip as naive_search

from bitdistiller import kernels
from bitdistiller.calibration import SearchOptions, gram_matrix, search, search_clip
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
        monkeypatch.setattr("bitdistiller.calibration.clip.CPU_BLOCK", limit)
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


def test_a_finer_grid_equals_the_naive_search_on_it():
    weight, x = layer(rows=6, columns=32, dtype=torch.float64)
    options = SearchOptions(steps=14, limit=0.7)
    assert options.ratios[:2] == (1, 0.95)
    high, low, error = naive_search(weight, x, "int2", 16, ratios=options.ratios)
    found = search(weight, gram_matrix(x, 16), get_format("int2"), 16, options=options)
    torch.testing.assert_close(found.maximum, high)
    torch.testing.assert_close(found.minimum, low)
    torch.testing.assert_close(found.error_after.squeeze(-1) / len(x), error, rtol=1e-4, atol=0)


def naive_descent(w, x, name, upper, lower, step, rounds):
    """Coordinate descent for one group, one trial at a time."""
    best = error_of(w, x, name, w.max() * upper, w.min() * lower)
    for _ in range(rounds):
        step /= 2
        for end, move in ((0, -step), (0, step), (1, -step), (1, step)):
            trial = [upper, lower]
            trial[end] += move
            if 0 < trial[end] <= 1:
                error = error_of(w, x, name, w.max() * trial[0], w.min() * trial[1])
                if error < best:
                    best, (upper, lower) = error, trial
    return upper, lower, best


@pytest.mark.parametrize("name", ["int2", "nf3"])
def test_refinement_equals_naive_coordinate_descent(name):
    weight, x = layer(rows=5, columns=32, dtype=torch.float64)
    grid = search(weight, gram_matrix(x, 16), get_format(name), 16)
    found = search(weight, gram_matrix(x, 16), get_format(name), 16, options=SearchOptions(refinement=4))
    assert (found.error_after <= grid.error_after).all()
    assert (found.error_after < grid.error_after).any()
    for row in range(5):
        for group in range(2):
            columns = slice(16 * group, 16 * group + 16)
            start = (grid.maximum_ratio[row, group].item(), grid.minimum_ratio[row, group].item())
            upper, lower, error = naive_descent(weight[row, columns], x[:, columns], name, *start, 0.05, 4)
            assert found.maximum_ratio[row, group].item() == pytest.approx(upper)
            assert found.minimum_ratio[row, group].item() == pytest.approx(lower)
            assert found.error_after[row, group].item() / len(x) == pytest.approx(error, rel=1e-4)


@pytest.mark.skipif(not kernels.can_compile(), reason="no C++ compiler that works")
@pytest.mark.parametrize("name", ["int2", "nf3"])
def test_compiled_candidates_choose_as_eager_ones(name, monkeypatch):
    monkeypatch.setattr("bitdistiller.calibration.candidates.WORTH_COMPILING", 0)
    weight, x = layer(rows=64, columns=64)
    found = {}
    for choice in ("eager", "compiled"):
        with kernels.using(choice):
            found[choice] = search(weight, gram_matrix(x, 16), get_format(name, "bfloat16"), 16)
    same = found["eager"].maximum_ratio == found["compiled"].maximum_ratio
    same &= found["eager"].minimum_ratio == found["compiled"].minimum_ratio
    assert same.double().mean() >= 0.999
    torch.testing.assert_close(found["eager"].error_after, found["compiled"].error_after, rtol=1e-6, atol=0)


def test_padded_groups_are_searched_like_full_ones_of_zero_weights():
    weight, x = layer(rows=6, columns=40)
    zeros = weight.new_zeros(6, 8), x.new_zeros(len(x), 8)
    gram = gram_matrix(torch.cat([x, zeros[1]], dim=1), 16)
    found = search(weight, gram, get_format("int2", pad=True), 16)
    expected = search(torch.cat([weight, zeros[0]], dim=1), gram, get_format("int2"), 16)
    assert torch.equal(found.maximum, expected.maximum)
    assert torch.equal(found.minimum, expected.minimum)


def test_the_batched_double_of_the_benchmarks_is_the_naive_search_too():
    weight, x = layer(rows=7, columns=32, dtype=torch.float64)
    expected = naive_search(weight, x, "int2", 16)[:2]
    for ours, theirs in zip(search_clip_in_batches(weight, x, 16, 2, rows=3), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
