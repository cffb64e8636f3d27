"""Statistics of a weight beside their naive doubles, and in cases that have a known answer."""

import math

import pytest
import torch
from reference import inspection as reference

from bitdistiller.inspection import statistics


def weight(rows=9, columns=24):
    """A random weight with a group of one sign, a constant group and a group of zeros."""
    made = torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)) * 0.3 + 0.05
    made[0, :8] = made[0, :8].abs()
    made[1, :8] = -0.25
    made[2, 8:16] = 0.0
    return made


@pytest.fixture(params=["whole", "row by row"])
def _chunks(request, monkeypatch):
    if request.param == "row by row":
        monkeypatch.setattr(statistics, "CHUNK", 1)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments(dtype):
    given = weight().to(dtype)
    assert statistics.moments(given) == pytest.approx(reference.moments(given.double().tolist()), rel=1e-12)


def test_moments_of_known_weights():
    sampled = torch.randn(400, 500, generator=torch.Generator().manual_seed(0))
    assert statistics.moments(sampled).kurtosis == pytest.approx(3, abs=0.05)
    assert statistics.moments(torch.tensor([[1.0, -1.0]])) == (0.0, 1.0, -1.0, 1.0, 1.0)
    constant = statistics.moments(torch.full((2, 3), 0.1))
    assert constant.kurtosis is None
    assert constant.std == pytest.approx(0, abs=1e-9)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("group_size", [8, 24, 10])
def test_peak_and_groups_of_one_sign(group_size):
    rows = weight().double().tolist()
    assert statistics.peak(weight(), group_size) == pytest.approx(reference.peak(rows, group_size), rel=1e-6)
    assert statistics.one_sign_share(weight(), group_size) == reference.one_sign_share(rows, group_size)


def test_a_constant_group_has_the_lowest_peak_and_one_weight_the_highest():
    assert statistics.peak(torch.full((2, 8), -0.3), 8) == pytest.approx(1)
    spike = torch.zeros(1, 16)
    spike[0, 3] = 0.7
    assert statistics.peak(spike, 16) == pytest.approx(4)
    assert statistics.peak(torch.zeros(2, 8), 8) is None


@pytest.mark.usefixtures("_chunks")
def test_squared_error():
    given, other = weight(), weight().round(decimals=1)
    expected = reference.squared_error(other.double().tolist(), given.double().tolist())
    assert statistics.squared_error(other, given) == pytest.approx(expected, rel=1e-12)
    assert statistics.squared_error(given, given)[0] == 0


@pytest.mark.parametrize("bits", [2, 3])
def test_use_of_the_codes(bits):
    codes = torch.randint(2**bits - 1, (5, 7), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    shares = statistics.code_shares(codes, bits)
    assert list(shares) == reference.code_shares(codes.tolist(), bits)
    assert shares[-1] == 0
    assert statistics.entropy(shares) == pytest.approx(reference.entropy(shares), rel=1e-12)


def test_entropy_of_known_shares():
    assert statistics.entropy((0.25,) * 4) == 2
    assert statistics.entropy((0.0, 1.0)) == 0
    assert math.copysign(1, statistics.entropy((1.0,))) == 1


@pytest.mark.parametrize("group_size", [8, 10])
def test_kept_shares(group_size):
    given = weight()
    groups = -(-given.shape[1] // group_size)
    ratios = torch.rand(2, len(given), groups, 1, generator=torch.Generator().manual_seed(5)) / 2 + 0.5
    rows = given.double().tolist()
    padded = torch.nn.functional.pad(given, (0, groups * group_size - given.shape[1])).view(len(given), groups, -1)
    ends = padded.amax(-1, keepdim=True) * ratios[0], padded.amin(-1, keepdim=True) * ratios[1]
    found = statistics.kept_shares(given, *ends, group_size)
    if group_size == 8:
        expected = reference.kept_shares(rows, *(end.flatten().tolist() for end in ends), group_size)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.flatten().tolist() == pytest.approx(theirs, rel=1e-6)
    zero = padded.amax(-1) == 0
    assert torch.equal(found[0][zero], torch.ones_like(found[0][zero]))
    assert torch.allclose(found[0][~zero], ratios[0].squeeze(-1)[~zero].double())


def test_summary_of_shares_and_of_their_histogram_agree():
    counts = [3, 0, 11, 7, 20, 0, 1, 9, 2, 4]
    shares = [1 - index / 20 for index, count in enumerate(counts) for _ in range(count)]
    mean = sum(shares) / len(shares)
    found = statistics.summarise(torch.tensor(shares, dtype=torch.float64))
    assert found == pytest.approx((mean, *reference.band(shares)))
    assert statistics.summarise_histogram(mean, counts) == pytest.approx(found)


@pytest.mark.parametrize("counts", [[5], [0, 0, 8], [1, 0, 0, 0, 9], [9, 0, 0, 0, 1]])
def test_summary_of_lopsided_histograms(counts):
    shares = [1 - index / 20 for index, count in enumerate(counts) for _ in range(count)]
    assert statistics.summarise_histogram(0.0, counts)[1:] == pytest.approx(reference.band(shares))
