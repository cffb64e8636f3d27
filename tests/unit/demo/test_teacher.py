"""The demo teacher: its shape, its training loop, and the stage that survives kills bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitdistiller.config import DemoTeacherRecipe
from bitdistiller.demo import stage as demo_stage
from bitdistiller.demo.teacher import LAST_RATE, TeacherTraining, architecture, batch_rows, schedule, weighted_loss
from bitdistiller.errors import InputError

SMALL = DemoTeacherRecipe(
    hidden_size=64,
    intermediate_size=128,
    layers=1,
    heads=2,
    kv_heads=1,
    vocabulary=300,
    context=96,
    documents=40,
    steps=6,
    batch_size=2,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of an undisturbed run of SMALL."""
    output = tmp_path_factory.mktemp("small") / "base"
    demo_stage.run(SMALL, output=output, work=None, time_budget=None)
    return output


def test_default_widths_fit_groups_of_128_and_serving_engines() -> None:
    recipe = DemoTeacherRecipe()
    tokenizer, _ = demo_stage.prepare(recipe.model_copy(update={"documents": 50}))
    config = architecture(recipe, tokenizer)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    blocks = [
        module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "layers" in name
    ]
    assert len(blocks) == 7 * recipe.layers
    assert all(module.in_features % 128 == 0 for module in blocks)
    assert config.head_dim >= 32
    assert 0.7e6 < sum(weight.numel() for weight in model.parameters()) < 1.5e6


def test_output_loads_as_any_model_does(small: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(small / "model")
    tokenizer = AutoTokenizer.from_pretrained(small / "model")
    ids = tokenizer("One morning", return_tensors="pt")["input_ids"]
    assert model(input_ids=ids).logits.shape == (1, ids.shape[1], len(tokenizer))
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    history = [json.loads(line) for line in (small / "training.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == [1, 2, 3, 4, 5, 6]
    digest = json.loads((small / "digest.json").read_text())
    assert digest["counts"]["demo-math.test.jsonl"] == demo_stage.POOL["test"]
    assert (small / "corpus" / "demo-calibration.train.jsonl").exists()


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


@pytest.mark.parametrize("damage", [False, True])
def test_a_killed_run_ends_with_the_same_bits(small: Path, tmp_path: Path, damage: bool) -> None:
    output = tmp_path / "base"
    step = TeacherTraining.step

    def dies(training: TeacherTraining) -> float:
        if training.done == 4:
            raise Killed
        return step(training)

    with (
        mock.patch.object(demo_stage, "SAVE_SECONDS", 0.0),
        mock.patch.object(TeacherTraining, "step", dies),
        pytest.raises(Killed),
    ):
        demo_stage.run(SMALL, output=output, work=tmp_path / "work", time_budget=None)
    states = sorted((tmp_path / "work").rglob(demo_stage.STATE))
    assert [path.parent.name for path in states] == ["checkpoint-3", "checkpoint-4"]
    if damage:
        states[-1].write_bytes(states[-1].read_bytes()[:-100])
    demo_stage.run(SMALL, output=output, work=tmp_path / "work", time_budget=None)
    expected, found = (load_file(path / "model" / "model.safetensors") for path in (small, output))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for name in ("training.jsonl", "digest.json", "model/tokenizer.json", "corpus/demo-code.test.jsonl"):
        assert (output / name).read_bytes() == (small / name).read_bytes()


def test_weighted_loss_is_the_plain_one_where_weights_are_equal() -> None:
    tokenizer, rows = demo_stage.prepare(SMALL)
    model = TeacherTraining(SMALL, architecture(SMALL, tokenizer), rows).model
    ids = rows.ids[-2:]
    plain = model(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(weighted_loss(model, ids, torch.full(ids.shape, 0.3)), plain)


def test_training_learns_and_leaves_the_global_generator_alone() -> None:
    tokenizer, rows = demo_stage.prepare(SMALL)
    before = torch.get_rng_state()
    training = TeacherTraining(SMALL.model_copy(update={"steps": 40}), architecture(SMALL, tokenizer), rows)
    losses = [training.step() for _ in range(40)]
    assert torch.equal(torch.get_rng_state(), before)
    assert losses[-1] < 0.8 * losses[0]


def test_schedule_rises_then_falls() -> None:
    rates = [schedule(step, 200) for step in range(200)]
    assert rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert LAST_RATE <= rates[-1] < 2 * LAST_RATE


def test_every_row_is_seen_once_an_epoch() -> None:
    seen = torch.cat([batch_rows(step, 12, 4, seed=1) for step in range(3)])
    assert sorted(seen.tolist()) == list(range(12))
    assert not torch.equal(seen, torch.cat([batch_rows(step, 12, 4, seed=1) for step in range(3, 6)]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 4}, "heads"),
        ({"heads": 2, "kv_heads": 3}, "kv_heads"),
        ({"documents": 1, "batch_size": 8}, "batch_size"),
    ],
)
def test_impossible_recipes_say_which_key(changes: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        demo_stage.run(SMALL.model_copy(update=changes), output=tmp_path / "base", work=None, time_budget=None)
