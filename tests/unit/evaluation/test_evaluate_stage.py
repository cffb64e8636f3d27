"""The stage as a whole."""

from importlib import import_module
from typing import get_args

import pytest

from bitdistiller.config import EvaluateRecipe, Evaluation
from bitdistiller.errors import InputError
from bitdistiller.evaluation.stage import KINDS, run


def test_every_kind_of_the_config_has_its_module():
    union = get_args(Evaluation)[0]
    kinds = {get_args(section.model_fields["kind"].annotation)[0] for section in get_args(union)}
    assert kinds == set(KINDS)
    for name in KINDS.values():
        module = import_module(name)
        assert callable(module.predict)
        assert callable(module.measure)


def test_missing_inputs_are_refused_before_anything_is_loaded(tmp_path):
    recipe = EvaluateRecipe(name="p", evaluation={"kind": "perplexity", "dataset": "text", "path": tmp_path / "no.txt"})
    with pytest.raises(InputError, match="no such file"):
        run(recipe, model=tmp_path, output=tmp_path / "out")
    with pytest.raises(InputError, match="no such file"):
        run(recipe, model=tmp_path / "no-model", output=tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_label_changes_no_prediction(subject, tmp_path, write_lines, words, monkeypatch):
    """A second run under another label finds every batch done: the model is not asked again."""
    from bitdistiller.evaluation import stage as module

    monkeypatch.setattr(module.Subject, "load", classmethod(lambda cls, path, dtype, reference: subject))
    path = write_lines([{"text": " ".join(words * 10)}])
    model = tmp_path / "model"
    model.mkdir()
    output = tmp_path / "out"
    evaluation = {"kind": "perplexity", "dataset": "text", "path": path, "chunk_length": 16}
    run(EvaluateRecipe(name="p", evaluation=evaluation | {"label": "one"}), model=model, output=output)
    first = (output / "predictions.jsonl").read_bytes()
    monkeypatch.setattr(subject.model, "forward", lambda *_, **__: pytest.fail("the model was asked again"))
    run(EvaluateRecipe(name="p", evaluation=evaluation | {"label": "two"}), model=model, output=output)
    assert (output / "predictions.jsonl").read_bytes() == first
    assert '"label": "two"' in (output / "metrics.json").read_text()
