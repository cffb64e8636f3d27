"""The stage `baseline` on the tiny model with a library that is always there."""

import pytest
from helpers import fake_library

from bitdistiller.baselines import registry
from bitdistiller.baselines.stage import run
from bitdistiller.config import BaselineRecipe

SENTENCES = [f"The {name} sat on the mat and read a book about the moon." for name in ("cat", "dog", "bird")] * 8


@pytest.fixture
def baseline(monkeypatch, tiny_model, tmp_path):
    """`baseline(format=...)`: run the stage as method gptq with the fake library; returns its output directory."""
    monkeypatch.setitem(registry.BASELINES, "gptq", "helpers.fake_library")

    def start(format="int2", scale_dtype="bfloat16", group_size=64):
        quantization = {"format": format, "group_size": group_size, "scale_dtype": scale_dtype}
        recipe = BaselineRecipe(quantization=quantization, calibration={"texts": "pile"}, method="gptq")
        where = {"output": tmp_path / "baseline", "work": tmp_path / "baseline.work"}
        run(recipe, model=tiny_model, texts=lambda: SENTENCES, time_budget=None, **where)
        return tmp_path / "baseline"

    return start


@pytest.fixture
def library(monkeypatch):
    """`library(quantise)`: let the fake library do something else."""
    return lambda quantise: monkeypatch.setattr(fake_library, "quantise", quantise)
