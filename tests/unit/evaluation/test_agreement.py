"""Agreement with a full-precision model, against the naive double."""

import copy
import json
import random

import pytest
import torch
from reference.perplexity import naive_agreement

from bitdistiller.config import EvaluateRecipe, Experiment
from bitdistiller.errors import InputError
from bitdistiller.evaluation import agreement
from bitdistiller.evaluation import stage as evaluate_stage

TEXT = {"kind": "agreement", "dataset": "text"}


@pytest.fixture
def path(words, write_lines):
    """A file of random documents."""
    rng = random.Random(1)
    return write_lines([{"text": " ".join(rng.choices(words, k=rng.randint(3, 30)))} for _ in range(30)])


@pytest.fixture
def pair(subject):
    """The subject, a little beside its reference."""
    subject.reference = copy.deepcopy(subject.model)
    with torch.no_grad():
        for parameter in subject.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return subject


def ids_of(path, tokenizer):
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    return tokenizer("\n\n".join(texts), add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("rows", [1, 3, 2**24])
def test_equals_the_naive_double(pair, tokenizer, evaluation_of, path, monkeypatch, rows):
    monkeypatch.setattr(agreement, "MOST_ELEMENTS", rows * pair.model.config.vocab_size)
    metrics, predictions, _ = evaluation_of(pair, **TEXT, path=path, chunk_length=17, batch_size=4)
    kl, top1 = naive_agreement(pair.model, pair.reference, ids_of(path, tokenizer), 17)
    found = metrics["metrics"]
    assert found["kl"]["value"] == pytest.approx(kl, rel=1e-5)
    assert found["top1"]["value"] == pytest.approx(top1, abs=1e-12)
    assert kl > 0
    assert 0 < top1 < 1
    assert (found["kl"]["quantity"], found["kl"]["higher_is_better"]) == ("nats", False)
    assert (found["top1"]["quantity"], found["top1"]["higher_is_better"]) == ("fraction", True)
    assert found["kl"]["n"] == len(predictions) == len(ids_of(path, tokenizer)) // 17
    assert found["kl"]["standard_error"] > 0


def test_a_model_agrees_with_itself(subject, evaluation_of, path):
    subject.reference = subject.model
    metrics, _, _ = evaluation_of(subject, **TEXT, path=path, chunk_length=16, max_chunks=2)
    assert metrics["metrics"]["kl"]["value"] == 0
    assert metrics["metrics"]["top1"]["value"] == 1
    assert metrics["metrics"]["kl"]["total"] > metrics["metrics"]["kl"]["n"] == 2


def test_a_broken_model_has_no_divergence_but_a_reason(pair, evaluation_of, path):
    with torch.no_grad():
        pair.model.lm_head.weight.fill_(float("nan"))
    metrics, predictions, _ = evaluation_of(pair, **TEXT, path=path, chunk_length=16)
    assert metrics["metrics"]["kl"]["value"] is None
    assert "divergence" in metrics["metrics"]["kl"]["reason"]
    assert predictions[0]["kl"] is None


def test_it_needs_a_reference_of_the_same_vocabulary(subject, evaluation_of, path):
    with pytest.raises(InputError, match="--reference"):
        evaluation_of(subject, **TEXT, path=path, chunk_length=16)
    subject.reference = copy.deepcopy(subject.model)
    subject.reference.config.vocab_size = 7
    with pytest.raises(InputError, match="reference one of 7"):
        evaluation_of(subject, "other", **TEXT, path=path, chunk_length=16)


@pytest.mark.parametrize(
    ("kind", "reference", "message"), [("agreement", None, "needs one"), ("perplexity", "m", "none")]
)
def test_the_command_asks_for_it(tmp_path, kind, reference, message):
    recipe = EvaluateRecipe(name="a", evaluation={"kind": kind, "dataset": "text", "path": tmp_path})
    with pytest.raises(InputError, match=message):
        evaluate_stage.run(recipe, model=tmp_path, reference=reference, output=tmp_path / "out")


def test_a_full_precision_run_is_not_asked():
    evaluations = {"kl": {"kind": "agreement", "dataset": "demo-text"}}
    runs = {"full": {"model": "m", "method": "16-bit"}, "rtn": {"model": "m", "method": "rtn", "format": "int2"}}
    experiment = Experiment(models={"m": {"demo": {}}}, evaluations=evaluations, runs=runs)
    assert [experiment.evaluations_of(run) for run in runs] == [[], ["kl"]]
