"""Model cards and published checkpoints: what they say, that their code runs, and what is refused."""

import json
import re

import pytest
import yaml
from tiny_models import pack, recipe
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from bitdistiller.cli import app
from bitdistiller.config import Experiment
from bitdistiller.errors import InputError
from bitdistiller.recipes import load_experiment
from bitdistiller.reporting.card import cards
from bitdistiller.reporting.collect import collect
from bitdistiller.reporting.publish import publish
from bitdistiller.stages.digest import describe_files

RUNS = {
    "full": {"model": "m", "method": "16-bit"},
    "two": {"model": "m", "method": "rtn", "format": "int2", "group_size": 64},
    "three": {"model": "m", "method": "rtn", "format": "nf3", "group_size": 64},
}


@pytest.fixture
def experiment(tmp_path):
    """Its file, as a user has it."""
    content = {
        "experiment": "e",
        "models": {"m": {"hub": "some/model", "title": "Tiny", "license": "mit"}},
        "evaluations": {"text": {"kind": "perplexity", "dataset": "text", "path": "t.jsonl", "label": "PPL"}},
        "runs": RUNS,
    }
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def results(tmp_path, model_directory):
    """A packed INT2 and a packed NF3 checkpoint, and the perplexity of two runs."""
    root = tmp_path / "results"
    for run, number_format in (("two", "int2"), ("three", "nf3")):
        folder = root / "m" / run / "export"
        folder.mkdir(parents=True)
        pack(model_directory(), recipe(number_format, dtype="float32"), folder / "checkpoint")
        vocabulary = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=vocabulary).save_pretrained(folder / "checkpoint")
        verified = {"layers": 14, "fresh_process": {"parameters": 39, "logits_equal": True}}
        sizes = {
            "bits_per_weight": 2.5,
            "minimum_bits_per_weight": 2.3,
            "file_bytes": 2_000_000,
            "minimum_bytes": 1_900_000,
        }
        (folder / "export.json").write_text(json.dumps(sizes | {"weights": "model", "verified": verified}))
        (folder / "digest.json").write_text(json.dumps({"files": describe_files(folder), "counts": {}}))
    for run, value in (("two", 20.0), ("full", 10.0)):
        folder = root / "m" / run / "evaluation" / "text"
        folder.mkdir(parents=True)
        metric = {
            "value": value,
            "standard_error": 0.5,
            "n": 7,
            "unit": "chunks",
            "higher_is_better": False,
            "total": 9,
        }
        (folder / "metrics.json").write_text(json.dumps({"kind": "perplexity", "metrics": {"perplexity": metric}}))
    return root


def card(experiment, results, run):
    chosen = load_experiment(experiment)
    return cards(chosen, collect(chosen, results), results)[run]


def test_a_card_says_what_is_known(experiment, results):
    text = card(experiment, results, "two")
    _, front, body = text.split("---\n", 2)
    front = yaml.safe_load(front)
    assert (front["license"], front["base_model"]) == ("mit", "some/model")
    assert "| PPL | perplexity | 20.00 ± 0.50 | 7 of 9 chunks | 10.00 ± 0.50 |" in body
    assert "2.500 (the format itself: 2.300)" in body
    assert "14 layers; 39 parameters after loading in a fresh process, logits equal" in body
    assert re.search(r"`model\.safetensors`: SHA-256 `[0-9a-f]{64}`", body)
    assert "No evaluation has finished." in card(experiment, results, "three")
    assert card(experiment, results, "two") == text


def test_the_recipe_of_a_card_is_an_experiment(experiment, results):
    (text,) = re.findall(r"```yaml\n(.*?)```", card(experiment, results, "two"), re.S)
    again = Experiment.model_validate(yaml.safe_load(text))
    assert set(again.runs) == {"two"}
    assert again.runs["two"] == load_experiment(experiment).runs["two"]


@pytest.mark.parametrize("run", ["two", "three"])
def test_the_code_of_a_card_runs(experiment, results, tmp_path, run):
    destination = tmp_path / "published"
    (line,) = publish(load_experiment(experiment), run, destination, results)
    assert str(destination) in line
    text = (destination / "README.md").read_text()
    assert text == card(experiment, results, run)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {}
    exec(code.replace("PATH", str(destination)), names)
    tokens = names["tokenizer"]("a a a", return_tensors="pt").input_ids
    assert names["model"](tokens).logits.isfinite().all()


def test_only_what_is_finished_whole_and_has_room_is_published(experiment, results, tmp_path):
    chosen, destination = load_experiment(experiment), tmp_path / "published"
    for run, message in (
        ("other", "no such run; the experiment has full, three, two"),
        ("full", "no finished checkpoint"),
    ):
        with pytest.raises(InputError, match=message):
            publish(chosen, run, destination, results)
    config = results / "m" / "two" / "export" / "checkpoint" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(InputError, match="export the run again"):
        publish(chosen, "two", destination, results)
    assert not destination.exists()
    destination.mkdir()
    (destination / "mine.txt").write_text("x")
    refused = CliRunner().invoke(app, ["publish", "three", str(destination), "--config", str(experiment)])
    assert "is not empty" in str(refused.exception)
    assert [path.name for path in destination.iterdir()] == ["mine.txt"]


def test_the_licence_is_read_from_the_model(experiment, results):
    content = yaml.safe_load(experiment.read_text())
    del content["models"]["m"]["license"]
    experiment.write_text(yaml.safe_dump(content))
    assert "is not recorded here" in card(experiment, results, "two")
    model = results / "m" / "base" / "model"
    model.mkdir(parents=True)
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    assert "licence is apache-2.0" in card(experiment, results, "two")
