"""Several programs for a problem: the estimator, their seeds, records and metrics."""

import statistics

import pytest
from pydantic import ValidationError
from reference.pass_at_k import pass_at_k

from bitdistiller.config import CodeEvaluation
from bitdistiller.evaluation import code
from bitdistiller.evaluation.code import measure, pass_at

ROWS = [
    {"id": f"p{i}", "prompt": "def f(x):\n", "test": "def check(f):\n    assert f(1) == 1\n", "entry_point": "f"}
    for i in range(3)
]


def evaluation(**options):
    return CodeEvaluation(kind="code", dataset="demo-code", **options)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 1), (5, 2), (7, 7), (8, 3)])
def test_the_estimator_is_the_definition(n, k):
    for c in range(n + 1):
        outcomes = [True] * c + [False] * (n - c)
        assert pass_at(k, n, c) == pytest.approx(pass_at_k(outcomes, k), abs=1e-12)


def test_many_programs_do_not_overflow():
    assert 0 < pass_at(100, 100_000, 7) < 0.01


def test_metrics_average_over_problems():
    passed = [[True, False, False, True], [False] * 4, [True] * 4]
    records = [{"id": i, "attempt": j, "passed": x} for i, row in enumerate(passed) for j, x in enumerate(row)]
    found = measure(records, evaluation(samples=4, k=(1, 2), temperature=0.8))
    assert list(found) == ["pass@1", "pass@2"]
    for k in (1, 2):
        expected = [pass_at_k(row, k) for row in passed]
        metric = found[f"pass@{k}"]
        assert metric["value"] == pytest.approx(statistics.mean(expected))
        assert metric["standard_error"] == pytest.approx(statistics.stdev(expected) / 3**0.5)
        assert (metric["n"], metric["unit"]) == (3, "problems")


def test_every_attempt_has_a_seed_of_its_own_and_the_first_that_of_one_alone(
    answering, evaluation_of, write_lines, monkeypatch
):
    def run(stage, evaluation, programs, checks, sandbox):
        return [{"status": "passed", "detail": "", "passed": True} for _ in programs]

    monkeypatch.setattr(code, "run_programs", run)
    subject = answering({"def f": "    return x\n"})
    options = {"kind": "code", "dataset": "demo-code", "path": write_lines(ROWS), "temperature": 0.8}
    _, one, _ = evaluation_of(subject, "one", **options)
    alone = [seed for _, seeds, _ in subject.engine.batches for seed in seeds]
    subject.engine.batches.clear()
    metrics, several, _ = evaluation_of(subject, "several", **options, samples=3, k=[1, 3], top_p=0.95)
    seeds = [seed for _, seeds, _ in subject.engine.batches for seed in seeds]
    assert {sampling.top_p for _, _, sampling in subject.engine.batches} == {0.95}
    assert len(set(seeds)) == 3  # the three problems have one prompt
    assert set(alone) < set(seeds)
    assert [(line["id"], line["attempt"]) for line in several] == [(f"p{i}", j) for i in range(3) for j in range(3)]
    assert all("attempt" not in line for line in one)
    assert metrics["metrics"]["pass@3"]["n"] == 3
    assert metrics["protocol"]["samples"] == 3
    assert metrics["protocol"]["top_p"] == 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": [1, 5], "samples": 4, "temperature": 0.8}, r"k: 1, 5; accepted: 1 and others up to samples \(4\)"),
        ({"k": [2], "samples": 4, "temperature": 0.8}, "accepted: 1 and others"),
        ({"samples": 4}, "give a temperature above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        evaluation(**options)
