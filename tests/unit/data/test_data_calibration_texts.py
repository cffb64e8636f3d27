"""Calibration texts (docs/method.md 2): templates, order, what is refused."""

import json

import pytest

from bitdistiller.config import Calibration
from bitdistiller.data import rows as room
from bitdistiller.data.calibration_texts import TEXTS, calibration_texts
from bitdistiller.errors import InputError


@pytest.fixture
def texts(tmp_path):
    """`texts(dataset, rows)`: the calibration texts of a local file."""

    def load(dataset, rows, **changes):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return calibration_texts(Calibration(texts=dataset, path=path, **changes))

    return load


def test_templates(texts):
    assert texts("pile", [{"text": " A {text}. "}]) == ["A {text}."]
    assert texts("text", [{"prompt": "Q", "completion": " A"}]) == ["Q A"]
    assert texts("demo", [{"text": "T", "prompt": "Q"}]) == ["T"]
    assert texts("code", [{"instruction": "Do {it}", "output": "x = {}"}]) == ["Instruction:\nDo {it}\nOutput:\nx = {}"]
    assert texts("gsm8k", [{"question": "Q", "answer": "A #### 4"}]) == ["Instruction:\nQ\nOutput:\nA #### 4"]


def test_the_order_is_fixed_by_the_seed_and_empty_texts_are_left_out(texts):
    rows = [{"text": f"t{n}" if n % 5 else " "} for n in range(50)]
    first = texts("text", rows)
    assert len(first) == 40
    assert first == texts("text", rows) != texts("text", rows, seed=7)
    assert sorted(first) == sorted(texts("text", rows, seed=7))


def test_the_hub_places(monkeypatch):
    asked = []
    monkeypatch.setattr(room, "hub_rows", lambda *place: asked.append(place) or [{"text": "x"}])
    calibration_texts(Calibration(texts="pile"))
    assert asked == [("mit-han-lab/pile-val-backup", None, "validation")]
    assert (TEXTS["code"].hub, TEXTS["gsm8k"].hub) == ("nickrosh/Evol-Instruct-Code-80k-v1", "openai/gsm8k")


def test_refusals_are_one_line(texts):
    with pytest.raises(InputError, match="no text found"):
        texts("text", [{"text": ""}])
    with pytest.raises(InputError, match="gsm8k: a row lacks the column question; it has text"):
        texts("gsm8k", [{"text": "x"}])
    with pytest.raises(InputError, match="dataset demo has no place on the hub; give a path"):
        calibration_texts(Calibration(texts="demo"))
