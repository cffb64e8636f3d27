"""The learning rate over the steps of a run."""

import math

import pytest

from bitdistiller.distillation.schedules import schedule_factor


def factors(schedule, warmup=0.0, total=10):
    return [schedule_factor(schedule, warmup, total, step) for step in range(total)]


def test_schedules():
    assert factors("constant") == [1.0] * 10
    assert factors("constant", warmup=0.3) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)
    assert factors("linear") == pytest.approx([1 - step / 10 for step in range(10)])
    assert factors("cosine") == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)])
    one = factors("one-cycle")
    assert one == factors("cosine", warmup=0.3)
    assert max(one) == one[3] == 1.0
    assert one[:4] == sorted(one[:4])
    assert one[3:] == sorted(one[3:], reverse=True)
    assert factors("one-cycle", warmup=0.5).index(1.0) == 5


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "one-cycle"])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_every_learning_rate_is_positive_and_at_most_the_peak(schedule, total, warmup):
    assert all(0.0 < factor <= 1.0 for factor in factors(schedule, warmup, total))
