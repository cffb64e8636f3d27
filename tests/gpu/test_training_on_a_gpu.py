"""The stage `train` on one GPU: it learns what it learns on a CPU, goes on after a stop, and knows its memory."""

import pytest
import torch
from helpers.mixes import make_recipe, tokenize_mix

from bitdistiller.distillation import stage as train_stage
from bitdistiller.distillation.inputs import Inputs
from bitdistiller.errors import DeadlineReached
from bitdistiller.stages.files import read_json, read_json_lines

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(scope="module")
def train(tiny_model, tmp_path_factory):
    """`train(output, time_budget, **options)`: the losses of a finished run by step."""
    tokens = tokenize_mix(tmp_path_factory.mktemp("gpu") / "tokens", tiny_model)

    def call(output, time_budget=None, **options):
        inputs = Inputs(tiny_model, tiny_model, tokens)
        train_stage.run(make_recipe(**options), inputs, output=output, work=None, time_budget=time_budget)
        return [entry["loss"] for entry in read_json_lines(output / "history.jsonl") if "loss" in entry]

    return call


def test_the_losses_are_those_of_a_cpu(train, tmp_path, monkeypatch):
    on_gpu = train(tmp_path / "gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_gpu == pytest.approx(train(tmp_path / "cpu"), rel=2e-2)


@pytest.mark.parametrize("engine", ["single", "ddp", "fsdp"])
def test_bfloat16_with_recomputation_goes_on_after_a_stop(train, tmp_path, engine):
    options = {"precision": "bfloat16", "gradient_checkpointing": True, "engine": engine}
    whole = train(tmp_path / "whole", **options)
    with pytest.raises(DeadlineReached):
        train(tmp_path / "cut", time_budget=1e-4, **options)
    assert train(tmp_path / "cut", **options) == pytest.approx(whole, rel=1e-3)
    assert whole[-1] < whole[0]
    details = read_json(tmp_path / "whole" / "provenance.json")["details"]
    assert details["device"] == "cuda"
    assert details["peak_memory"]["device_bytes"] > 0
    assert sum(details["time_shares"].values()) == pytest.approx(1.0, abs=1e-3)
