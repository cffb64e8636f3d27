"""Experiment files: every bad one ends with one line that names the key, and the schema knows every key."""

import copy
import json
from pathlib import Path

import pytest

from bitdistiller import config
from bitdistiller.config import Training
from bitdistiller.environments import BASELINES
from bitdistiller.errors import InputError
from bitdistiller.options import RECIPES, describe, experiment_schema
from bitdistiller.recipes import as_text, load_experiment

ROOT = Path(__file__).parents[2]
GOOD = {
    "models": {"m": {"hub": "a/b"}},
    "calibrations": {"c": {"texts": "pile"}},
    "mixes": {"x": {"teacher": "m", "sources": [{"dataset": "alpaca", "samples": 10}]}},
    "trainings": {"t": {"epochs": 2}},
    "evaluations": {"e": {"kind": "perplexity", "dataset": "wikitext2"}},
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


def changed(path, value):
    """GOOD with the value at the dotted path replaced; a number in the path is an index."""
    experiment = node = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    node[last] = value
    return experiment


def complaint(experiment):
    with pytest.raises(InputError) as error:
        load_experiment(experiment)
    text = str(error.value)
    assert error.value.exit_code == 2
    assert "\n" not in text
    assert len(text) < 700
    return text.removeprefix("config: ")


def test_a_librarys_run_can_wait_for_its_environment(monkeypatch):
    experiment = changed("runs.gptq", {"model": "m", "method": "gptq", "format": "int2", "calibration": "c"})
    experiment["runs"]["gptq"]["when_available"] = True
    monkeypatch.setattr(type(BASELINES), "is_missing", lambda self: self is BASELINES)
    assert list(load_experiment(experiment).runs) == ["full", "int2"]
    monkeypatch.setattr(type(BASELINES), "is_missing", lambda self: False)
    assert list(load_experiment(experiment).runs) == ["full", "int2", "gptq"]
    experiment["runs"]["int2"]["when_available"] = True
    assert (
        complaint(experiment) == "runs.int2: method bitdistiller takes no when_available: it needs no other environment"
    )


def test_a_good_one_is_accepted():
    experiment = load_experiment(GOOD)
    assert experiment.runs["int2"].quantization == config.Quantization(format="int2")
    assert experiment.evaluations_of("full") == ["e"]


@pytest.mark.parametrize(
    "path",
    [
        "bogus",
        "models.m.bogus",
        "mixes.x.sources.0.bogus",
        "mixes.x.generation.bogus",
        "calibrations.c.bogus",
        "trainings.t.bogus",
        "evaluations.e.bogus",
        "runs.int2.bogus",
        "resources.train.bogus",
    ],
)
def test_an_unknown_key_at_any_depth(path):
    text = complaint(changed(path, 1))
    assert text.startswith(f"{path}: unknown key; accepted: ")
    section = load_experiment(GOOD)
    for key in path.split(".")[:-1]:
        section = (
            section[int(key) if key.isdigit() else key] if isinstance(section, dict | list) else getattr(section, key)
        )
    assert text.rpartition(": ")[2].split(", ") == sorted(type(section).model_fields)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("mixes.x.sources.0.samples", 0, "mixes.x.sources.0.samples: input should be greater than 0, not 0"),
        ("mixes.x.sources.0.dataset", "pg19", "mixes.x.sources.0.dataset: input should be 'wikitext', 'redpajama', "),
        ("calibrations.c.texts", "pg19", "calibrations.c.texts: input should be 'pile', 'code', 'gsm8k', 'text' or "),
        ("evaluations.e.dataset", "pg19", "evaluations.e.dataset: input should be 'wikitext2', 'c4', 'text' or "),
        ("evaluations.e.kind", "bleu", "evaluations.e.kind: input should be 'perplexity', 'agreement', 'math', "),
        ("evaluations.e", {"dataset": "c4"}, "evaluations.e.kind: field required"),
        ("mixes.x.sources", [], "mixes.x.sources: list should have at least 1 item"),
        ("mixes.x.sources.0.prompts", 9, "mixes.x.sources.0: prompts (9) must be at least samples (10)"),
        ("mixes.x.teacher", "other", "mixes.x.teacher: 'other' is not defined; defined: m"),
        ("mixes.x.generation", {"top_p": 0}, "mixes.x.generation.top_p: input should be greater than 0, not 0"),
        ("calibrations.c.texts", "text", "calibrations.c: texts: text needs a path"),
        ("models.m", {}, "models.m: give exactly one of path, hub and demo (found none)"),
        ("models.m.path", "x", "models.m: give exactly one of path, hub and demo (found path, hub)"),
        ("models.m", {"path": "x", "revision": "y"}, "models.m: revision belongs to hub; a local path has none"),
        ("models", {}, "models: dictionary should have at least 1 item"),
        ("models.a b", {"hub": "a/b"}, "models.a b: string should match pattern"),
        ("trainings.t.micro_batch_size", 3, "trainings.t: micro_batch_size (3) must divide batch_size (128)"),
        ("trainings.t.gamma", 2, "trainings.t.gamma: input should be 'paper' or 'reference', or input should be less"),
        ("trainings.t", {"loss": "jsd", "gamma": 1}, "trainings.t: loss jsd needs a gamma (its beta) strictly between"),
        ("trainings.t", {"loss": {"ce": 1, "jsd": 1}, "gamma": 0}, "trainings.t: loss jsd needs a gamma (its beta)"),
        ("trainings.t.loss", {}, "trainings.t.loss: a weighted sum takes coefficients of cakld, forward, reverse, jsd"),
        ("trainings.t.loss", {"mse": 1}, "trainings.t.loss: a weighted sum takes coefficients of cakld, forward, "),
        ("trainings.t.loss", {"ce": 0}, "trainings.t.loss: the coefficients of a weighted sum must be numbers greater"),
        ("trainings.t.epochs", "many", "trainings.t.epochs: input should be a valid number"),
        (
            "runs.int2.format",
            "int5",
            "runs.int2.format: unknown 'int5'; accepted: int2, int3, int4, nf2, nf3, nf4, sym3, sym4, sym8",
        ),
        ("runs.int2.method", "hqq", "runs.int2: unknown method 'hqq'; accepted: 16-bit, rtn, clip, gptq, awq, "),
        ("runs.int2.mix", None, "runs.int2: method bitdistiller needs mix"),
        ("runs.full.mix", "x", "runs.full: method 16-bit takes no mix"),
        ("runs.full.model", "other", "runs.full.model: 'other' is not defined; defined: m"),
        ("runs.int2.calibration", "d", "runs.int2.calibration: 'd' is not defined; defined: c"),
        ("runs.full.evaluations", ["e", "f"], "runs.full.evaluations: 'f' is not defined; defined: e"),
        ("runs.clip", {"model": "m", "method": "16-bit"}, "runs.clip: this name is used by the workflow"),
        ("averages", {"e": {"of": ["e", "e"]}}, "averages.e: an evaluation has this name"),
        ("averages", {"a": {"of": ["e", "x"]}}, "averages.a.of: 'e' is no evaluation with a share"),
        ("runs.int2.nodes", 0, "runs.int2.nodes: input should be greater than 0, not 0"),
        ("runs.full.nodes", 2, "runs.full: method 16-bit takes no nodes"),
        ("runs.int2.group_size", 0, "runs.int2.group_size: input should be greater than 0, not 0"),
    ],
)
def test_a_wrong_value_is_one_line(path, value, expected):
    assert complaint(changed(path, value)).startswith(expected)


def test_one_process_does_not_run_on_two_nodes():
    experiment = changed("runs.int2.nodes", 2)
    assert load_experiment(experiment).runs["int2"].nodes == 2
    experiment["trainings"]["t"]["engine"] = "single"
    assert complaint(experiment).startswith(
        "runs.int2.nodes: 2, but the engine of training 't' is single, which is one"
    )


def test_a_sum_of_one_loss_alone_is_the_recipe_of_its_name():
    alone, named = (Training(loss=loss) for loss in ({"forward": 1}, "forward"))
    assert alone == named
    assert as_text(alone) == as_text(named)
    assert as_text(Training(loss={"cakld": 1.0})) == as_text(Training())
    assert Training(loss={"cakld": 1.0, "ce": 0.1}).losses == {"cakld": 1.0, "ce": 0.1}


def test_further_errors_are_counted():
    experiment = changed("models.m.bogus", 1)
    experiment["trainings"]["t"]["epochs"] = -1
    assert complaint(experiment).endswith("title (and 1 more)")


def test_the_committed_schema_is_current():
    committed = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text())
    assert committed == json.loads(json.dumps(experiment_schema()))


def objects(node):
    """Every part of a JSON schema that describes an object."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        yield from objects(inner)


def test_every_object_of_the_schema_is_closed():
    found = list(objects(experiment_schema()))
    assert len(found) > 15
    assert [each.get("title") for each in found if each.get("additionalProperties") is not False] == []


def test_every_example_fits_the_schema():
    jsonschema = pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml")
    files = [ROOT / "config.yaml", *(ROOT / "experiments").glob("*.yaml"), *(ROOT / "tests" / "configs").glob("*.yaml")]
    for file in filter(Path.exists, files):
        jsonschema.validate(yaml.safe_load(file.read_text()), experiment_schema())
        load_experiment(file)


def sections(annotation, seen):
    from bitdistiller.options import _models

    for kind in _models(annotation):
        if kind not in seen:
            seen.append(kind)
            for field in kind.model_fields.values():
                sections(field.annotation, seen)
    return seen


@pytest.mark.parametrize("stage", RECIPES)
def test_every_option_of_a_stage_is_described(stage):
    text = describe(RECIPES[stage])
    keys = {line.split(" (")[0].rpartition(".")[2] for line in text.splitlines()}
    for section in sections(RECIPES[stage], []):
        assert section.model_fields.keys() <= keys
    assert "PydanticUndefined" not in text
    assert "FieldInfo" not in text


def test_values_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load_experiment(GOOD).runs["int2"].group_size = 64
