"""Ablations: which runs a block makes, what is refused, and their table."""

import json
import math

import numpy as np
import pytest
import yaml

from bitdistiller.config import Experiment
from bitdistiller.errors import InputError
from bitdistiller.plan import Plan
from bitdistiller.recipes import as_text, load_experiment, load_recipe
from bitdistiller.reporting import page
from bitdistiller.reporting.ablation import ablation_frame, paired_error, render_latex, render_markdown, table_rows
from bitdistiller.reporting.collect import collect

BASE = {
    "models": {"m": {"demo": {}}, "large": {"demo": {"layers": 8}}},
    "calibrations": {"c": {"texts": "demo"}},
    "mixes": {"x": {"teacher": "m", "sources": [{"dataset": "demo-text", "samples": 101, "prompts": 200}]}},
    "trainings": {"t": {"max_steps": 5}},
    "evaluations": {"e": {"kind": "perplexity", "dataset": "demo-text", "label": "PPL"}},
    "runs": {
        "full": {"model": "m", "method": "16-bit"},
        "int2": {
            "model": "m",
            "method": "bitdistiller",
            "format": "int2",
            "calibration": "c",
            "mix": "x",
            "training": "t",
        },
    },
}
VARY = {
    "clip": [False],
    "loss": ["forward", {"cakld": 1.0, "ce": 0.1}],
    "gamma": [0.5],
    "format": ["int3"],
    "group_size": [64],
    "teacher": ["large"],
    "samples": [0.25],
}


def content(**changes):
    return BASE | {"ablation": {"base": "int2", "vary": VARY} | changes}


def test_every_value_is_a_run_with_one_thing_changed():
    given = content()
    before = json.dumps(given)
    experiment = Experiment.model_validate(given)
    assert json.dumps(given) == before
    base, plan = experiment.runs["int2"], Plan(experiment)
    new = [name for name in experiment.runs if name not in BASE["runs"]]
    assert new == [
        "int2-no-clip",
        "int2-loss-forward",
        "int2-loss-cakld-1.0-ce-0.1",
        "int2-gamma-0.5",
        "int2-format-int3",
        "int2-group_size-64",
        "int2-teacher-large",
        "int2-samples-0.25",
    ]
    assert list(experiment.ablation.rows) == ["int2", *new]
    assert experiment.ablation.rows["int2-no-clip"] == ("clip", "off")
    assert experiment.runs["int2-no-clip"].method == "distilled"
    assert plan.training("int2-gamma-0.5") == plan.training("int2").model_copy(update={"gamma": 0.5})
    assert experiment.runs["int2-format-int3"] == base.model_copy(update={"format": "int3"})
    assert plan.tokens("int2-loss-forward") == plan.tokens("int2")
    assert plan.clip("int2-loss-forward") == plan.clip("int2")
    (source,) = experiment.mixes["x-0.25"].sources
    assert (source.samples, source.prompts) == (25, 50)


def test_an_expanded_experiment_is_read_back_as_it_is():
    experiment = Experiment.model_validate(content())
    assert load_recipe(Experiment, as_text(Plan(experiment).table_recipe()), []) == experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "full"}, "ablation.base: 'full' is no run of this experiment that trains"),
        ({"base": "other"}, "ablation.base: 'other' is no run"),
        ({"vary": {"colour": ["red"]}}, "ablation.vary.colour: unknown factor; accepted: clip, samples, format"),
        ({"vary": {"clip": ["hard"]}}, "ablation.vary.clip: 'hard'; accepted: off"),
        ({"vary": {"format": ["int2"]}}, "ablation.vary.format: 'int2' is the base's own"),
        ({"vary": {"group_size": [128]}}, "ablation.vary.group_size: 128 is the base's own"),
        ({"vary": {"loss": ["cakld"]}}, "ablation.vary.loss: 'cakld' is the base's own"),
        ({"base": ["int2"]}, "ablation.base"),
        ({"vary": {"samples": [2]}}, "ablation.vary.samples: 2; accepted: shares between 0 and 1"),
        ({"vary": {"gamma": [0.5, 0.5]}}, "ablation.vary.gamma: there is a run int2-gamma-0.5 already"),
        ({"vary": {"loss": ["l2"]}}, "loss"),
        ({"vary": {}}, "ablation.vary"),
        ({"colour": 1}, "unknown key"),
    ],
)
def test_mistakes_are_one_line(tmp_path, changes, message):
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(content(**changes)))
    with pytest.raises(InputError) as error:
        load_experiment(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "message"), [("mix", "needs mix"), ("training", "needs training")])
def test_a_base_that_lacks_something_is_told_so_itself(tmp_path, key, message):
    given = content()
    given["runs"] = {"int2": {name: value for name, value in BASE["runs"]["int2"].items() if name != key}}
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(given))
    with pytest.raises(InputError, match=message):
        load_experiment(path)


def write(results, run, losses, protocol=None):
    folder = results / "m" / run / "evaluation" / "e"
    folder.mkdir(parents=True)
    value = math.exp(np.mean(losses))
    error = value * np.std(losses, ddof=1) / math.sqrt(len(losses))
    metric = {"value": value, "standard_error": error, "n": len(losses), "unit": "chunks"}
    head = {"evaluation": "e", "kind": "perplexity", "metrics": {"perplexity": metric}, "protocol": protocol or {}}
    (folder / "metrics.json").write_text(json.dumps(head))
    lines = [json.dumps({"index": i, "tokens": 9, "nll": loss}) for i, loss in enumerate(losses)]
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_the_table_has_differences_in_pairs(tmp_path):
    experiment = Experiment.model_validate(content(vary={"gamma": [0.5, 0.7]}))
    base = [1.0, 1.2, 0.9, 1.4]
    write(tmp_path, "int2", base)
    write(tmp_path, "int2-gamma-0.5", [loss + 0.1 for loss in base])
    write(tmp_path, "int2-gamma-0.7", base[:3])
    frame = ablation_frame(experiment, collect(experiment, tmp_path), tmp_path)
    assert frame["run"].tolist() == ["int2", "int2-gamma-0.5", "int2-gamma-0.7"]
    assert frame["paired"].tolist() == [False, True, False]
    first, half, other = (row for row in frame.itertuples())
    assert half.difference == pytest.approx(half.value - first.value)
    assert half.difference_standard_error < half.standard_error / 5
    assert other.difference_standard_error == pytest.approx(math.hypot(first.standard_error, other.standard_error))
    text = render_markdown(experiment, frame)
    assert "| gamma" in text
    assert text.count("gamma") == 1
    assert f"{first.value:.2f} ± " in text
    html = page.render_ablation("Ablation", table_rows(experiment, frame), "note")
    assert f"{first.value:.2f} ± " in html
    assert "no ablation" in page.render_ablation("Ablation", [], "note")
    latex = render_latex(experiment, frame)
    assert {line.count("&") for line in latex.splitlines() if "&" in line} == {3}
    (tmp_path / "m" / "int2-gamma-0.5" / "evaluation" / "e" / "metrics.json").unlink()
    again = ablation_frame(experiment, collect(experiment, tmp_path), tmp_path)
    assert "pending" in render_markdown(experiment, again)


def test_the_paired_error_is_that_of_the_difference(tmp_path):
    """Against the delta method written out: perplexities b and a of chunks, their losses in pairs."""
    rng = np.random.default_rng(0)
    a = rng.normal(1.0, 0.2, 50)
    b = a + rng.normal(0.1, 0.05, 50)
    folders = [write(tmp_path, name, losses.tolist()) for name, losses in (("int2", a), ("int2-gamma-0.5", b))]
    each = np.exp(b.mean()) * b - np.exp(a.mean()) * a
    assert paired_error(*folders) == pytest.approx(each.std(ddof=1) / math.sqrt(50))
    write(tmp_path, "other", b.tolist(), {"chunk_length": 7})
    assert paired_error(folders[0], tmp_path / "m" / "other" / "evaluation" / "e") is None


def test_an_experiment_without_one_says_so(tmp_path):
    experiment = Experiment.model_validate(BASE)
    frame = ablation_frame(experiment, collect(experiment, tmp_path), tmp_path)
    assert frame.empty
    assert "no ablation" in render_markdown(experiment, frame)
    assert "no ablation" in render_latex(experiment, frame)
