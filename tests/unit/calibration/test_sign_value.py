"""The start of a 1-bit layer, against scikit-learn and singular values."""

import numpy as np
import pytest
import torch
from reference.onebit import rank_one

from bitdistiller.calibration import sign_value_decomposition
from bitdistiller.calibration.sign_value import latent_weight
from bitdistiller.errors import InputError


def gaussian(rows, columns, seed=1):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


@pytest.mark.parametrize("shape", [(64, 48), (48, 64), (300, 200), (1, 16), (16, 1)])
def test_bits_of_scikit_learn(shape):
    decomposition = pytest.importorskip("sklearn.decomposition")
    weight = gaussian(*shape)
    model = decomposition.NMF(n_components=1, init="random", random_state=0)
    expected = model.fit_transform(weight.abs().numpy())
    scale, factor = sign_value_decomposition(weight)
    assert np.array_equal(scale.numpy(), expected[:, 0])
    assert np.array_equal(factor.numpy(), model.components_[0])


@pytest.mark.parametrize("method", ["nmf", "svd"])
def test_the_best_rank_one_approximation_of_the_magnitudes(method):
    weight = gaussian(120, 80)
    scale, factor = sign_value_decomposition(weight, method)
    assert scale.dtype == factor.dtype == torch.float32
    assert float(torch.cat([scale, factor]).min()) >= 0
    np.testing.assert_allclose(np.outer(scale, factor), rank_one(weight.abs().double().numpy()), atol=1e-6)
    error = torch.linalg.norm(weight - weight.sign() * torch.outer(scale, factor)) / torch.linalg.norm(weight)
    assert 0.55 < error < 0.62  # sqrt(1 - 2 / pi) for Gaussian weights of any size


def test_how_the_magnitude_is_split():
    """By the authors' start: mean |W| = a gives vectors near 0.8 sqrt(a) and 1.25 sqrt(a)."""
    weight = gaussian(512, 256)
    root = weight.abs().mean().sqrt()
    scale, factor = sign_value_decomposition(weight)
    assert (scale.mean() / root).item() == pytest.approx(0.8, abs=0.05)
    assert (factor.mean() / root).item() == pytest.approx(1.25, abs=0.08)


def test_zeros_and_other_dtypes():
    scale, factor = sign_value_decomposition(torch.zeros(3, 4))
    assert not torch.cat([scale, factor]).any()
    weight = gaussian(8, 8).bfloat16()
    for ours, wide in zip(sign_value_decomposition(weight), sign_value_decomposition(weight.float()), strict=True):
        assert torch.equal(ours, wide)
    assert latent_weight(torch.tensor([[0.3, -2.0, 0.0]])).tolist() == [pytest.approx([0.01, -0.01, 0.0])]


@pytest.mark.parametrize(
    "weight", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int8), torch.tensor([[float("nan")]])]
)
def test_bad_weights_are_one_line(weight):
    with pytest.raises(InputError, match=r"^q_proj: [^\n]+$"):
        sign_value_decomposition(weight, name="q_proj")
