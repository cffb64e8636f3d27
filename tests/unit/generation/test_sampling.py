"""The seeded sampler draws what softmax sampling draws."""

import numpy as np
import pytest
import torch
from reference.generation import draw

from bitdistiller.generation.sampling import SeededSampler, prompt_uniforms, sample

LOGITS = torch.tensor([1.2, -0.3, 0.0, 2.0, -4.0, 0.7, 1.9, -1.1])
DRAWS = 20_000
CHI_SQUARE_7 = 24.32  # 0.999 quantile at 7 degrees of freedom


def counts(temperature, top_p=1.0):
    """How often each token is drawn: one draw from each of many seeds."""
    uniforms = prompt_uniforms(range(DRAWS), 3)[:, 2]
    drawn = sample(LOGITS.expand(DRAWS, -1), uniforms, temperature, top_p)
    return np.bincount(drawn.numpy(), minlength=len(LOGITS))


def chi_square(observed, probabilities):
    expected = probabilities * DRAWS
    kept = expected > 0
    assert observed[~kept].sum() == 0
    return float((((observed - expected)[kept]) ** 2 / expected[kept]).sum())


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_draws_follow_the_softmax(temperature):
    probabilities = torch.softmax(LOGITS.double() / temperature, -1).numpy()
    assert chi_square(counts(temperature), probabilities) < CHI_SQUARE_7
    assert chi_square(counts(temperature), torch.softmax(LOGITS.double() / 1.3, -1).numpy()) > CHI_SQUARE_7


@pytest.mark.parametrize("top_p", [0.1, 0.6, 0.9])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p):
    probabilities = torch.softmax(LOGITS.double(), -1).numpy()
    order = np.argsort(-probabilities)
    kept = order[: int(np.searchsorted(probabilities[order].cumsum(), top_p)) + 1]
    truncated = np.zeros_like(probabilities)
    truncated[kept] = probabilities[kept] / probabilities[kept].sum()
    assert chi_square(counts(1.0, top_p), truncated) < CHI_SQUARE_7


def test_steps_are_independent():
    uniforms = prompt_uniforms(range(4000), 4)
    correlation = np.corrcoef(uniforms.numpy().T)
    assert np.abs(correlation - np.eye(4)).max() < 0.06
    assert uniforms.min() >= 0.0
    assert uniforms.max() < 1.0
    assert uniforms.mean().item() == pytest.approx(0.5, abs=0.01)


def test_uniforms_depend_on_the_seed_alone():
    seeds = [7, 2**62, 0, 12345]
    together = prompt_uniforms(seeds, 6)
    for row, seed in zip(together, seeds, strict=True):
        assert torch.equal(prompt_uniforms([seed], 50)[0, :6], row)


def test_greedy_takes_the_largest_logit():
    logits = torch.stack([LOGITS, -LOGITS, LOGITS.roll(1)])
    assert sample(logits, torch.tensor([0.0, 0.5, 0.999]), 0.0, 1.0).tolist() == [3, 4, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (0.7, 1.0), (1.3, 0.5), (0.05, 0.99)])
def test_equals_the_naive_draw(dtype, temperature, top_p):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(200, 50, generator=generator).mul(3).to(dtype)
    uniforms = torch.rand(200, dtype=torch.float64, generator=generator)
    naive = [draw(row.double().numpy(), u.item(), temperature, top_p) for row, u in zip(logits, uniforms, strict=True)]
    assert sample(logits, uniforms, temperature, top_p).tolist() == naive


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(1.0, 0.0)])
def test_the_ends_of_the_unit_interval_draw_possible_tokens(uniform):
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]])
    assert sample(logits, torch.tensor([uniform], dtype=torch.float64), 1.0, 1.0).item() in (1, 2)
    assert sample(logits, torch.tensor([uniform], dtype=torch.float64), 1.0, 0.5).item() == 2


def test_the_processor_leaves_one_token():
    sampler = SeededSampler([1, 2], prompt_length=3, steps=5, temperature=0.7, top_p=1.0)
    scores = LOGITS.expand(2, -1)
    for length in (3, 7):
        forced = sampler(torch.zeros(2, length, dtype=torch.long), scores)
        expected = sample(scores, prompt_uniforms([1, 2], 5)[:, length - 3], 0.7, 1.0)
        assert torch.equal(forced.argmax(-1), expected)
        assert torch.isfinite(forced).sum(-1).tolist() == [1, 1]
