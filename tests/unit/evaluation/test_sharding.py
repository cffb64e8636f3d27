"""An evaluation in shards gives the very files of one in a single job, and asks no model when they are put together."""

import json

import pytest
import torch
from helpers.tiny import SENTENCES, write_model

from bitdistiller.config import EvaluateRecipe
from bitdistiller.errors import InputError
from bitdistiller.evaluation.batches import Share
from bitdistiller.evaluation.stage import run, run_shard
from bitdistiller.evaluation.subject import Subject

TEXT = {"kind": "perplexity", "dataset": "text", "chunk_length": 16, "batch_size": 2}
MATH = {
    "kind": "math",
    "dataset": "gsm8k",
    "max_new_tokens": 4,
    "batch_size": 2,
    "commit_every": 2,
    "engine": "transformers",
}
CODE = {
    "kind": "code",
    "dataset": "humaneval",
    "max_new_tokens": 4,
    "batch_size": 2,
    "commit_every": 2,
    "engine": "transformers",
}
CHOICE = {"kind": "multiple_choice", "task": "own"}
KINDS = {
    "perplexity": TEXT,
    "agreement": {**TEXT, "kind": "agreement"},
    "math": MATH,
    "sampled code": {**CODE, "samples": 2, "k": [1, 2], "temperature": 0.8},
    "multiple choice": CHOICE,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=512)


@pytest.fixture
def recipe(tmp_path):
    """`recipe(kind)`: an evaluation of that kind on rows of its own."""
    rows = {
        "perplexity": [{"text": sentence * 3} for sentence in SENTENCES],
        "math": [{"question": f"{n} cats?", "answer": f"#### {n}"} for n in range(8)],
        "code": [
            {"task_id": f"T/{n}", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f):\n    f()\n"}
            for n in range(5)
        ],
        "multiple_choice": [{"question": s, "choices": [" a dog", " the moon"], "gold": 0} for s in SENTENCES],
    }
    rows["agreement"] = rows["perplexity"]

    def make(kind):
        chosen = KINDS[kind]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[chosen["kind"]]))
        return EvaluateRecipe(name="e", evaluation={**chosen, "path": path}, dtype="float32")

    return make


def shards(recipe, count, folder, **common):
    for shard in range(count):
        run_shard(recipe, shard=shard, shards=count, output=folder / f"{shard}", **common)
    return [folder / f"{shard}" for shard in range(count)]


@pytest.mark.parametrize("count", [2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_shards_give_the_same_files(kind, count, recipe, model, tmp_path, monkeypatch):
    from bitdistiller.evaluation import harness

    monkeypatch.setattr(harness, "REQUESTS_PER_BATCH", 3)
    chosen, common = recipe(kind), {"model": model}
    if kind == "agreement":
        common["reference"] = write_model(tmp_path / "reference", seed=1)
    run(chosen, output=tmp_path / "whole", **common)
    parts = shards(chosen, count, tmp_path / "shards", **common)
    done = [json.loads((part / "shard.json").read_text())["done"] for part in parts]
    found = [index for numbers in done for index in numbers]
    assert found == list(range(len(found)))
    assert sum(map(bool, done)) > 1
    monkeypatch.setattr(Subject, "load", lambda *_, **__: pytest.fail("weights were loaded"))
    run(chosen, output=tmp_path / "merged", parts=parts, **common)
    for name in ("predictions.jsonl", "metrics.json", "digest.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_stopped_shard_goes_on(recipe, model, tmp_path, monkeypatch):
    from bitdistiller.evaluation import perplexity

    chosen, losses, asked = recipe("perplexity"), perplexity.span_losses, []

    def failing(model, ids, spans):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(spans)
        return losses(model, ids, spans)

    monkeypatch.setattr(perplexity, "span_losses", failing)
    common = {"shard": 1, "shards": 2, "model": model, "output": tmp_path / "part"}
    with pytest.raises(KeyboardInterrupt):
        run_shard(chosen, **common)
    monkeypatch.setattr(perplexity, "span_losses", lambda *a: asked.append(a[2]) or losses(*a))
    run_shard(chosen, **common)
    done = json.loads((tmp_path / "part" / "shard.json").read_text())["done"]
    assert len(asked) == len(done)


def test_shards_must_be_complete_and_of_one_evaluation(recipe, model, tmp_path):
    chosen = recipe("perplexity")
    parts = shards(chosen, 3, tmp_path / "three", model=model)
    for given, message in (
        (parts[:2], "is in none of them; give every shard once"),
        ([*parts, parts[0]], "batch 0 is in two of them"),
    ):
        with pytest.raises(InputError, match=message):
            run(chosen, model=model, output=tmp_path / "out", parts=given)
    other = EvaluateRecipe(name="e", evaluation={**chosen.evaluation.model_dump(), "batch_size": 3}, dtype="float32")
    strangers = shards(other, 3, tmp_path / "other", model=model)
    with pytest.raises(InputError, match="shards of different evaluations"):
        run(chosen, model=model, output=tmp_path / "out", parts=[*parts[:2], strangers[2]])
    with pytest.raises(InputError, match="--shard: 3; accepted: 0 to 2"):
        run_shard(chosen, shard=3, shards=3, model=model, output=tmp_path / "four")


def test_a_model_that_there_is_not_has_shards_without_items(recipe, tmp_path):
    from bitdistiller.stages.unavailable import mark_unavailable

    model = tmp_path / "nothing"
    model.mkdir()
    mark_unavailable(model, "it did not converge")
    chosen = recipe("perplexity")
    parts = shards(chosen, 2, tmp_path / "shards", model=model)
    run(chosen, model=model, output=tmp_path / "out", parts=parts)
    metric = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]["perplexity"]
    assert metric["value"] is None
    assert "it did not converge" in json.dumps(metric)


@pytest.mark.parametrize(("batches", "count"), [(0, 3), (1, 3), (7, 3), (9, 3), (2, 5)])
def test_shares_are_ranges_that_cover_everything_once(batches, count):
    ranges = [Share(index, count).of(batches) for index in range(count)]
    assert [index for part in ranges for index in part] == list(range(batches))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def test_the_model_without_weights_keeps_configuration_and_limit(model):
    subject = Subject.without_weights(model, 40)
    assert subject.context == 40
    assert all(parameter.device == torch.device("meta") for parameter in subject.model.parameters())
