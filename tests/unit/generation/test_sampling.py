"""The seeded sampler draws what softmax sampling draws."""

import numpy as np
import pytest
import torch
from reference.generation import draw

from bitdistiller.generation.sampling import PromptNoise, SeededSampler, sample

LOGITS = torch.tensor([1.2, -0.3, 0.0, 2.0, -4.0, 0.7, 1.9, -1.1])
DRAWS = 20_000
CHI_SQUARE_7 = 24.32  # 0.999 quantile at 7 degrees of freedom


def counts(temperature, top_p=1.0):
    """How often each token is drawn: one draw from each of many seeds."""
    noise = PromptNoise(range(DRAWS))
    noise.step(len(LOGITS))
    drawn = sample(LOGITS.expand(DRAWS, -1), noise.step(len(LOGITS)), temperature, top_p)
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
    noise = PromptNoise(range(4000))
    steps = np.stack([noise.step(3)[:, 1].numpy() for _ in range(4)])
    assert np.abs(np.corrcoef(steps) - np.eye(4)).max() < 0.06
    assert steps.min() > 0.0
    assert steps.mean() == pytest.approx(1.0, abs=0.03)


def test_noise_depends_on_the_seed_alone():
    seeds = [7, 2**62, 0, 12345]
    together = PromptNoise(seeds)
    alone = [PromptNoise([seed]) for seed in seeds]
    for _ in range(3):
        rows = together.step(50)
        for row, stream in zip(rows, alone, strict=True):
            assert torch.equal(stream.step(50)[0], row)


def test_greedy_takes_the_largest_logit():
    logits = torch.stack([LOGITS, -LOGITS, LOGITS.roll(1)])
    assert sample(logits, None, 0.0, 1.0).tolist() == [3, 4, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (0.7, 1.0), (1.3, 0.5), (0.05, 0.99)])
def test_equals_the_naive_draw(dtype, temperature, top_p):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(200, 50, generator=generator).mul(3).to(dtype)
    noise = PromptNoise(range(200)).step(50)
    rows = zip(logits.double().numpy(), noise.numpy(), strict=True)
    naive = [draw(row, drawn, temperature, top_p) for row, drawn in rows]
    assert sample(logits, noise, temperature, top_p).tolist() == naive


def test_impossible_tokens_are_never_drawn():
    logits = torch.tensor([-torch.inf, 0.0, 1.0, -torch.inf]).expand(500, -1)
    noise = PromptNoise(range(500)).step(4)
    assert set(sample(logits, noise, 1.0, 1.0).tolist()) == {1, 2}
    assert set(sample(logits, noise, 1.0, 0.5).tolist()) == {2}


def test_a_rounding_error_elsewhere_changes_no_draw():
    logits = torch.randn(2000, 300, generator=torch.Generator().manual_seed(5))
    noise = PromptNoise(range(2000)).step(300)
    shaken = logits + 1e-6 * torch.randn(2000, 300, generator=torch.Generator().manual_seed(6))
    assert torch.equal(sample(logits, noise, 0.7, 1.0), sample(shaken, noise, 0.7, 1.0))


def test_the_processor_leaves_one_token():
    sampler = SeededSampler([1, 2], temperature=0.7, top_p=1.0)
    noise = PromptNoise([1, 2])
    scores = LOGITS.expand(2, -1)
    for length in (3, 4, 5):
        forced = sampler(torch.zeros(2, length, dtype=torch.long), scores)
        assert torch.equal(forced.argmax(-1), sample(scores, noise.step(len(LOGITS)), 0.7, 1.0))
        assert torch.isfinite(forced).sum(-1).tolist() == [1, 1]
