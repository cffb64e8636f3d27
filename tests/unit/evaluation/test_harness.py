"""Multiple choice through lm-eval, on local files and without a network."""

import functools
import gzip
import itertools
import json
import math
import socket

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from bitdistiller.errors import DeadlineReached, InputError
from bitdistiller.evaluation import harness
from bitdistiller.evaluation.subject import Subject


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to connect to anything is an error."""

    def refuse(*_):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def log_likelihood(model, tokenizer, context, choice):
    """Sum of log-probabilities of the tokens that `choice` adds after `context`, plain and slow."""
    whole = tokenizer(f"{context} {choice}", add_special_tokens=False)["input_ids"]
    start = len(tokenizer(context, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.tensor([whole])).logits[0].double(), dim=-1)
    return sum(logs[t - 1, whole[t]].item() for t in range(start, len(whole)))


ROWS = [
    {"query": "the cat sat on the", "choices": ["mat .", "rug", "dog and cat"], "gold": 0},
    {"query": "it was a big", "choices": ["dog", "red cat", "blue"], "gold": 2},
    {"query": "a small dog ran", "choices": ["and sat", "on", "it"], "gold": 1, "id": "third"},
]


def test_log_likelihoods_and_metrics_are_the_plain_ones(subject, evaluation_of, write_lines, no_network):
    path = write_lines(ROWS)
    metrics, predictions, _ = evaluation_of(subject, kind="multiple_choice", task="local", path=path)
    accurate = []
    for row, line in zip(ROWS, predictions, strict=True):
        plain = [log_likelihood(subject.model, subject.tokenizer, row["query"], choice) for choice in row["choices"]]
        assert line["log_likelihoods"] == pytest.approx(plain, abs=1e-4)
        normed = [value / len(choice) for value, choice in zip(plain, row["choices"], strict=True)]
        assert line["acc"] == float(plain.index(max(plain)) == row["gold"])
        assert line["acc_norm"] == float(normed.index(max(normed)) == row["gold"])
        accurate.append(line["acc"])
    assert [line["id"] for line in predictions] == ["0", "1", "third"]
    assert [line["gold"] for line in predictions] == [0, 2, 1]
    assert metrics["metrics"]["acc"]["value"] == pytest.approx(sum(accurate) / 3)
    assert metrics["metrics"]["acc"]["n"] == 3
    assert metrics["protocol"] == {"task": "local", "few_shot": 0, "metric": "acc", "dtype": "float32"}


def test_an_interrupted_run_goes_on_and_ends_the_same(subject, evaluation_of, write_lines, monkeypatch):
    monkeypatch.setattr("bitdistiller.evaluation.harness.REQUESTS_PER_BATCH", 4)
    options = {"kind": "multiple_choice", "task": "local", "path": write_lines(ROWS)}
    _, _, whole = evaluation_of(subject, "whole", **options)
    forward, calls = subject.model.forward, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise DeadlineReached("stop")
        return forward(*args, **kwargs)

    monkeypatch.setattr(subject.model, "forward", failing)
    with pytest.raises(DeadlineReached):
        evaluation_of(subject, "cut", **options)
    _, _, cut = evaluation_of(subject, "cut", **options)
    assert len(calls) == 4
    for name in ("predictions.jsonl", "metrics.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


def test_few_shot_examples_come_before_the_question(subject, evaluation_of, write_lines, monkeypatch):
    from bitdistiller.evaluation.harness import StagedModel

    seen = []
    loglikelihood = StagedModel.loglikelihood
    monkeypatch.setattr(
        StagedModel,
        "loglikelihood",
        lambda self, requests, **options: seen.extend(r.args[0] for r in requests) or loglikelihood(self, requests),
    )
    path = write_lines(ROWS)
    metrics, _, _ = evaluation_of(subject, kind="multiple_choice", task="local", path=path, few_shot=1)
    assert metrics["protocol"]["few_shot"] == 1
    for index, context in enumerate(seen):
        example, _, question = context.rpartition("\n\n")
        assert question == ROWS[index // 3]["query"]
        others = [f"{row['query']} {row['choices'][row['gold']]}" for row in ROWS if row["query"] != question]
        assert example in others


@pytest.mark.parametrize(
    "row",
    [
        {"query": "q", "choices": ["a", "b"]},
        {"query": "q", "choices": ["a", "b"], "gold": 2},
        {"query": "q", "choices": "ab", "gold": 0},
        {"sentence": "q", "choices": ["a", "b"], "gold": 0},
    ],
)
def test_bad_rows_are_refused(subject, evaluation_of, write_lines, row):
    path = write_lines([row])
    with pytest.raises(InputError, match="multiple choice"):
        evaluation_of(subject, kind="multiple_choice", task="local", path=path)


def test_arc_easy_runs_offline_near_chance(test_data, evaluation_of, no_network):
    from bitdistiller.export.load import load_model

    folder = test_data / "models" / "TinyStories-656K"
    subject = Subject(load_model(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder))
    path = test_data / "datasets" / "arc_easy" / "test.jsonl.gz"
    metrics, predictions, _ = evaluation_of(
        subject, kind="multiple_choice", task="arc_easy", path=path, max_items=40, metric="acc_norm"
    )
    with gzip.open(path, "rt") as handle:
        golds = [json.loads(line)["gold"] for line in itertools.islice(handle, 40)]
    assert [line["gold"] for line in predictions] == golds
    assert all(math.isfinite(value) for line in predictions for value in line["log_likelihoods"])
    for name in ("acc", "acc_norm"):
        metric = metrics["metrics"][name]
        assert 0.05 <= metric["value"] <= 0.55
        assert metric["n"] == 40
        assert metric["standard_error"] == pytest.approx(math.sqrt(metric["value"] * (1 - metric["value"]) / 39))


def test_an_unknown_task_is_refused(subject, evaluation_of, monkeypatch):
    monkeypatch.setattr(harness, "TaskManager", functools.partial(harness.TaskManager, include_defaults=False))
    with pytest.raises(InputError, match="lm-eval has no task 'arc_eazy'"):
        evaluation_of(subject, kind="multiple_choice", task="arc_eazy")


def test_a_task_whose_data_cannot_be_had_is_refused(subject, evaluation_of, monkeypatch, tmp_path):
    task = {"task": "far", "dataset_path": str(tmp_path / "nowhere"), "output_type": "multiple_choice"}
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(task | {"test_split": "test", "doc_to_text": "q"}))
    manager = functools.partial(harness.TaskManager, include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr(harness, "TaskManager", manager)
    with pytest.raises(InputError, match="task far: its data cannot be loaded"):
        evaluation_of(subject, kind="multiple_choice", task="far")
