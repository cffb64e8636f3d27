"""Metrics against the formulas as written."""

import math
import statistics

import pytest

from bitdistiller.evaluation.metrics import perplexity, proportion, unmeasured


def test_perplexity_is_exp_of_the_mean_with_the_delta_method():
    losses = [1.0, 2.0, 4.0]
    metric = perplexity(losses, "chunks")
    assert metric["value"] == pytest.approx(math.exp(7 / 3))
    assert metric["standard_error"] == pytest.approx(math.exp(7 / 3) * statistics.stdev(losses) / math.sqrt(3))
    assert (metric["n"], metric["unit"], metric["higher_is_better"]) == (3, "chunks", False)


def test_a_loss_that_is_not_finite_leaves_no_number():
    metric = perplexity([1.0, None], "chunks")
    assert metric["value"] is None
    assert "1 of 2 chunks" in metric["reason"]


def test_proportion_has_the_standard_error_of_the_mean():
    metric = proportion([1.0, 0.0, 1.0, 1.0], "questions")
    assert metric["value"] == 0.75
    assert metric["standard_error"] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))


def test_one_item_has_no_standard_error():
    assert proportion([1.0], "questions")["standard_error"] is None


def test_unmeasured_says_why():
    assert unmeasured("no isolation", 3, "problems", True) == {
        "value": None,
        "standard_error": None,
        "n": 3,
        "unit": "problems",
        "higher_is_better": True,
        "reason": "no isolation",
    }
