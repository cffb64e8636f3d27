"""CAKLD's gamma by the paper's definition and by the reference's, with the reference's slip on request."""

import math
from types import SimpleNamespace

import pytest
import torch
from reference import losses as naive

from bitdistiller.distillation.confidence import (
    paper_gamma,
    paper_part,
    paper_positions,
    reference_gamma,
    reference_part,
    reference_positions,
)
from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.losses.base import Rows
from bitdistiller.distillation.signals import HiddenSignal

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
    rows = Rows(labels)
    sequence = rows.sequence.masked_fill(labels == -100, -1)  # padding
    logits = torch.randn(size, 5, 6, generator=generator) * 2
    return SimpleNamespace(labels=labels, targets=rows.targets, completion=completion, sequence=sequence, logits=logits)


BATCHES = [make_batch(seed) for seed in range(13)]


def signal_of(logits):
    """A teacher whose hidden states are its logits."""
    return HiddenSignal(
        logits, Head(torch.eye(logits.shape[-1], dtype=logits.dtype), None, None, 1.0, logits.shape[-1])
    )


def paper(batch):
    keep = paper_positions(batch)
    return paper_part(signal_of(batch.logits[keep]), batch.targets[keep])


def reference(batch):
    return reference_part(signal_of(batch.logits[reference_positions(batch)]))


def tops(count):
    found = []
    for batch in BATCHES[:count]:
        real = batch.logits[batch.labels != -100]
        found.append(naive.top_confidence([real.tolist()]))
    return found


def test_golden_top_probability():
    total, count = reference_part(signal_of(GOLDEN.flatten(0, 1)))
    assert count == 6
    assert total / count == pytest.approx(0.3967497, abs=1e-7)
    assert naive.top_confidence(GOLDEN.tolist()) == pytest.approx(0.3967497, abs=1e-7)


def test_label_probability_equals_the_naive_double():
    for batch in BATCHES:
        total, count = paper(batch)
        expected = naive.label_confidence(*(part.tolist() for part in (batch.logits, batch.labels, batch.completion)))
        assert total / count == pytest.approx(expected, rel=1e-5)


def test_paper_gamma_is_the_mean_per_token_over_all_batches():
    parts = [paper(batch) for batch in BATCHES]
    expected = sum(total for total, _ in parts) / sum(count for _, count in parts)
    assert paper_gamma(iter(parts)) == pytest.approx(expected, rel=1e-12)
    assert paper_gamma(parts[:1]) == pytest.approx(parts[0][0] / parts[0][1], rel=1e-12)
    assert paper_gamma([]) == 0.0


def test_the_last_position_predicts_no_completion_even_of_the_first():
    batch = SimpleNamespace(targets=torch.tensor([[4, 5, -100]]), completion=torch.tensor([[True, False, True]]))
    assert paper_positions(batch).tolist() == [[False, True, False]]


def test_reference_gamma_is_the_plain_mean_of_batch_means():
    parts = [reference(batch) for batch in BATCHES]
    assert reference_gamma(parts, 10, False) == pytest.approx(sum(tops(10)) / 10, rel=1e-6)
    assert reference_gamma(parts[:4], 10, False) == pytest.approx(sum(tops(4)) / 4, rel=1e-6)


def test_reference_sum_adds_one_batch_too_many():
    parts = [reference(batch) for batch in BATCHES]
    found = reference_gamma(parts, 10, True)
    assert found == pytest.approx(sum(tops(11)) / 10, rel=1e-6)
    assert found > reference_gamma(parts, 10, False)


def test_reference_sum_with_too_few_batches_is_the_plain_mean():
    parts = [reference(batch) for batch in BATCHES[:4]]
    assert reference_gamma(parts, 10, True) == pytest.approx(sum(tops(4)) / 4, rel=1e-6)


def test_no_more_batches_are_asked_for_than_needed():
    asked = []

    def parts():
        for number, batch in enumerate(BATCHES):
            asked.append(number)
            yield reference(batch)

    reference_gamma(parts(), 3, False)
    assert asked == [0, 1, 2]
