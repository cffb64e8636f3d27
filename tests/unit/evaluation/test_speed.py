"""Speed of a model: what is counted, that two are measured in turns, and what the command writes."""

import csv
import json

import pytest
from typer.testing import CliRunner

from bitdistiller.cli import app
from bitdistiller.config import MixedBits
from bitdistiller.errors import InputError
from bitdistiller.evaluation import speed as module
from bitdistiller.evaluation.speed import Load, Speed, measure
from bitdistiller.layers import mix_linears


@pytest.fixture
def directory(model, tokenizer, tmp_path):
    """The tiny model, saved."""
    path = tmp_path / "model"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_rates_are_of_the_median_over_all_sequences():
    speed = Speed("m", Load(100, 10, 2, 3), 0, 0, 0.0, None, [1.0, 2.0, 4.0], [0.5, 0.2, 0.1])
    assert speed.prefill_rate == 100
    assert speed.decode_rate == 100
    assert speed.token_milliseconds == 20
    assert speed.spread(speed.prefill) == 1.0


def test_two_models_are_measured_in_turns(directory, monkeypatch):
    turns, once = [], module._once
    monkeypatch.setattr(module, "_once", lambda model, load: turns.append(id(model)) or once(model, load))
    one, other = measure([directory, directory], Load(8, 4, 2, repeats=3))
    assert len(one.prefill) == len(other.decode) == 3
    assert turns == turns[:2] * 4
    assert turns[0] != turns[1]
    parameters = sum(value.numel() for value in module.Subject.load(directory, "float32").model.parameters())
    assert one.memory >= 4 * parameters
    assert one.disk == (directory / "model.safetensors").stat().st_size


def test_the_prompt_is_read_once_and_every_token_is_one_step(directory, monkeypatch):
    widths, load = [], module.Subject.load

    def watched(path, dtype, packed):
        subject = load(path, dtype, packed=packed)
        forward = subject.model.forward
        monkeypatch.setattr(
            subject.model, "forward", lambda **inputs: widths.append(inputs["input_ids"].shape) or forward(**inputs)
        )
        return subject

    monkeypatch.setattr(module.Subject, "load", watched)
    measure([directory], Load(8, 3, 2, repeats=1))
    assert widths == [(2, 8), (2, 1), (2, 1), (2, 1)] * 2


def test_more_than_the_context_is_refused(directory):
    with pytest.raises(InputError, match=r"60 \+ 5, exceed its context of 64"):
        measure([directory], Load(60, 5))


def test_a_quantised_cache_is_kept_in_integers(model):
    mix_linears(model, MixedBits(32, 8, 4))
    *_, size = module._once(model, Load(8, 2))
    assert size == 2 * 2 * (8 + 2) * (16 + 4) + 2 * (8 + 2) * 16 * 4  # 32 codes and a scale; cos and sin


def test_the_command_prints_and_writes(directory, tmp_path):
    options = ["speed", str(directory), "--prompt-tokens", "8", "--new-tokens", "2", "--repeats", "1"]
    file = tmp_path / "speed.csv"
    shown = CliRunner().invoke(app, [*options, "--beside", str(directory), "--csv", str(file)])
    assert shown.exit_code == 0
    assert "First beside second: prefill" in shown.output
    rows = list(csv.DictReader(file.open()))
    assert len(rows) == 2
    assert float(rows[0]["decode_tokens_per_second"]) > 0
    assert int(rows[0]["cache_bytes"]) == 2 * 2 * 32 * (8 + 2) * 4  # layers, keys and values, width, tokens, float32
    (row,) = json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)
    assert set(row) == set(rows[0])
