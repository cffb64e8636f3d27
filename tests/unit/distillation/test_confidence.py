"""CAKLD's gamma by the paper's definition and by the reference's, with the reference's slip on request."""

import math
from types import SimpleNamespace

import pytest
import torch
from reference import losses as naive

from bitdistiller.distillation.confidence import label_probability, paper_gamma, reference_gamma, top_probability

GOLDEN = torch.tensor(
    [[[math.cos(2 + 3 * b + t + 2 * v) for v in range(5)] for t in range(3)] for b in range(2)]
).double()


def make_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    size = 2 + seed % 3
    labels = torch.randint(6, (size, 5), generator=generator)
    labels[-1, 3:] = -100
    completion = torch.rand(size, 5, generator=generator) < 0.6
    completion[0, 1] = True
    logits = torch.randn(size, 5, 6, generator=generator) * 2
    mask = torch.ones(size, 5, dtype=torch.long)
    return {"input_ids": logits, "attention_mask": mask, "labels": labels, "completion": completion}


BATCHES = [make_batch(seed) for seed in range(13)]


def teacher(input_ids, attention_mask):
    """The test's logits are handed through."""
    return SimpleNamespace(logits=input_ids)


def tops(count):
    return [naive.top_confidence(batch["input_ids"].tolist()) for batch in BATCHES[:count]]


def test_golden_top_probability():
    total, count = top_probability(GOLDEN)
    assert count == 6
    assert total / count == pytest.approx(0.3967497, abs=1e-7)
    assert naive.top_confidence(GOLDEN.tolist()) == pytest.approx(0.3967497, abs=1e-7)


def test_label_probability_equals_the_naive_double():
    for batch in BATCHES:
        total, count = label_probability(batch["input_ids"], batch["labels"], batch["completion"])
        expected = naive.label_confidence(*(batch[key].tolist() for key in ("input_ids", "labels", "completion")))
        assert total / count == pytest.approx(expected, rel=1e-5)


def test_paper_gamma_is_the_mean_per_token_over_all_batches():
    parts = [label_probability(b["input_ids"], b["labels"], b["completion"]) for b in BATCHES]
    expected = sum(total for total, _ in parts) / sum(count for _, count in parts)
    assert paper_gamma(teacher, BATCHES) == pytest.approx(expected, rel=1e-12)
    assert paper_gamma(teacher, iter(BATCHES[:1])) == pytest.approx(parts[0][0] / parts[0][1], rel=1e-12)


def test_reference_gamma_is_the_plain_mean_of_batch_means():
    assert reference_gamma(teacher, BATCHES, 10, False) == pytest.approx(sum(tops(10)) / 10, rel=1e-6)
    assert reference_gamma(teacher, BATCHES[:4], 10, False) == pytest.approx(sum(tops(4)) / 4, rel=1e-6)


def test_reference_sum_adds_one_batch_too_many():
    found = reference_gamma(teacher, BATCHES, 10, True)
    assert found == pytest.approx(sum(tops(11)) / 10, rel=1e-6)
    assert found > reference_gamma(teacher, BATCHES, 10, False)


def test_reference_sum_with_too_few_batches_is_the_plain_mean():
    assert reference_gamma(teacher, BATCHES[:4], 10, True) == pytest.approx(sum(tops(4)) / 4, rel=1e-6)


def test_no_more_batches_are_asked_for_than_needed():
    asked = []

    def batches():
        for number, batch in enumerate(BATCHES):
            asked.append(number)
            yield batch

    reference_gamma(teacher, batches(), 3, False)
    assert len(asked) <= 4
