"""The stage `train`: killed, cut short or damaged it ends with the weights of an undisturbed run, bit for bit."""

import json
import logging
import shutil

import pytest
import torch
from helpers.mixes import STEPS, make_recipe, tokenize_mix
from helpers.tiny import write_model
from helpers.tokens import write_token_file
from helpers.trainings import assert_same, saved, state
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from bitdistiller.distillation import checkpoints, gamma
from bitdistiller.distillation import student as student_module
from bitdistiller.distillation import teacher as teacher_module
from bitdistiller.distillation.inputs import Inputs
from bitdistiller.distillation.loop import Loop
from bitdistiller.errors import DeadlineReached, InputError
from bitdistiller.stages import verify
from bitdistiller.stages.deadline import Deadline
from bitdistiller.stages.files import read_json, read_json_lines


def weights(output):
    return load_file(output / "student" / "model.safetensors")


def same_weights(output, step):
    """Whether the result is the checkpoint of `step`, bit for bit."""
    found, checkpoint = weights(output), load_file(state(output) / f"checkpoint-{step}" / "weights.safetensors")
    assert found.keys() == checkpoint.keys()
    return all(torch.equal(tensor, checkpoint[name]) for name, tensor in found.items())


def test_what_a_run_leaves(undisturbed, tiny_model):
    verify(undisturbed)
    names = {path.name for path in (undisturbed / "student").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "bitdistiller.json"} <= names
    record = read_json(undisturbed / "student" / "bitdistiller.json")
    assert record == {"format": "int2", "group_size": 32, "scale_dtype": "bfloat16", "pad": False}
    before, after = load_file(tiny_model / "model.safetensors"), weights(undisturbed)
    assert before.keys() == after.keys()
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert all(not torch.equal(before[name], after[name]) for name in before)  # all parameters train
    gamma = read_json(undisturbed / "gamma.json")
    assert (gamma["definition"], gamma["samples"]) == ("paper", 32)
    assert 0.0 < gamma["gamma"] < 1.0
    history = list(read_json_lines(undisturbed / "history.jsonl"))
    assert [entry["step"] for entry in history if "loss" in entry] == list(range(1, STEPS + 1))
    evaluations = {entry["step"]: entry["evaluation_loss"] for entry in history if "evaluation_loss" in entry}
    assert list(evaluations) == [4, 8, 12, 16, 18]
    assert evaluations[18] < evaluations[4]
    counts = read_json(undisturbed / "digest.json")["counts"]
    best = min(evaluations, key=evaluations.get)
    assert counts == {"best_step": best, "steps": STEPS, "evaluation_loss": evaluations[best]}
    checkpoint = state(undisturbed) / f"checkpoint-{best}"
    assert read_json(checkpoint / "state.json")["gamma"] == gamma
    details = read_json(undisturbed / "provenance.json")["details"]
    assert (details["steps_taken"], details["skipped_steps"], details["attempts"]) == (STEPS, 0, 1)
    assert details["tokens"] == sum(entry["tokens"] for entry in history if "loss" in entry) > STEPS
    assert (details["engine"], details["layout"]) == ("single", "packed")


def test_the_optimizer_state_goes_when_the_run_has_finished(undisturbed):
    """The last two checkpoints and the best one, which here is the last, whole without it."""
    assert saved(undisturbed) == [16, 18]
    for path in checkpoints.steps(state(undisturbed)).values():
        assert {file.name for file in path.iterdir()} == {"weights.safetensors", "state.json", checkpoints.MARKER}
        assert checkpoints.is_whole(path)


def test_a_finished_run_whose_outputs_were_deleted_is_not_trained_again(train, undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed.with_name("train.work"), tmp_path / "train.work")
    monkeypatch.setattr(Loop, "_step", None)
    train(tmp_path / "train")
    assert_same(tmp_path / "train", undisturbed)


def test_a_finished_run_that_lost_its_last_checkpoint_too_starts_anew(train, undisturbed, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    shutil.copytree(undisturbed.with_name("train.work"), tmp_path / "train.work")
    (state(tmp_path / "train") / "checkpoint-18" / "weights.safetensors").write_bytes(b"")
    train(tmp_path / "train")
    assert "checkpoint of step 16 has no optimizer state to go on with" in caplog.text
    assert_same(tmp_path / "train", undisturbed)


def test_a_time_budget_shorter_than_any_step_still_makes_progress(train, undisturbed, tmp_path):
    for step in (1, 2):
        with pytest.raises(DeadlineReached, match="the time budget is nearly used"):
            train(tmp_path / "train", time_budget=1e-4)
        assert saved(tmp_path / "train")[-1] == step
    train(tmp_path / "train")
    assert_same(tmp_path / "train", undisturbed)


@pytest.mark.parametrize("step", [3, 8, 13])
def test_a_deadline_at_any_step(train, undisturbed, tmp_path, monkeypatch, step):
    """In the middle between two evaluations, at one of them that also ends an epoch, and after the first epoch."""
    calls = iter(range(1, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(Deadline, "is_due", lambda _: next(calls) >= step)
        with pytest.raises(DeadlineReached):
            train(tmp_path / "train")
    assert saved(tmp_path / "train")[-1] == step
    train(tmp_path / "train")
    assert_same(tmp_path / "train", undisturbed)


def test_a_corrupted_newest_checkpoint(train, cut, undisturbed, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    cut(tmp_path / "train", 12)
    path = state(tmp_path / "train") / "checkpoint-12" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    train(tmp_path / "train")
    assert "checkpoint of step 12 is incomplete or damaged" in caplog.text
    assert_same(tmp_path / "train", undisturbed)


def test_every_checkpoint_corrupted_starts_anew(train, cut, undisturbed, tmp_path):
    cut(tmp_path / "train", 8)
    for step in (4, 8):
        (state(tmp_path / "train") / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"")
    train(tmp_path / "train")
    assert_same(tmp_path / "train", undisturbed)


def test_killed_after_the_last_step_nothing_is_trained_again(train, cut, undisturbed, tmp_path, monkeypatch):
    cut(tmp_path / "train", STEPS)
    monkeypatch.setattr(Loop, "_step", None)
    train(tmp_path / "train")
    assert_same(tmp_path / "train", undisturbed)


def test_a_changed_recipe_does_not_resume(train, cut, tmp_path):
    other = make_recipe(learning_rate=1e-3, max_steps=4)
    cut(tmp_path / "train", 4)
    train(tmp_path / "train", recipe=other)
    assert len(list((tmp_path / "train.work").glob("stale-*/checkpoint-4"))) == 1
    train(tmp_path / "fresh", recipe=other)
    assert_same(tmp_path / "train", tmp_path / "fresh")


def test_the_best_checkpoint_is_the_result_and_is_kept(train, tmp_path):
    """A learning rate so high that every evaluation is worse than the first one."""
    recipe = make_recipe(learning_rate=0.05, max_steps=4, evaluate_every=1, keep_checkpoints=1)
    output = train(tmp_path / "train", recipe=recipe)
    evaluations = {
        entry["step"]: entry["evaluation_loss"]
        for entry in read_json_lines(output / "history.jsonl")
        if "evaluation_loss" in entry
    }
    best = min(evaluations, key=evaluations.get)
    assert best < 4
    assert saved(output) == [best, 4]
    assert read_json(output / "digest.json")["counts"]["best_step"] == best
    assert [same_weights(output, step) for step in (best, 4)] == [True, False]


def test_without_evaluation_the_last_checkpoint_is_the_result(train, tmp_path):
    output = train(tmp_path / "train", recipe=make_recipe(evaluation_fraction=0.0, max_steps=6))
    assert read_json(output / "digest.json")["counts"] == {"best_step": 6, "steps": 6, "evaluation_loss": None}
    assert same_weights(output, 6)


def test_bfloat16_and_gradient_checkpointing(train, cut, undisturbed, tiny_model, tmp_path):
    """Both run and resume; recomputed activations change nothing, bfloat16 little."""
    recipe = make_recipe(gradient_checkpointing=True)
    inputs = Inputs(tiny_model, tiny_model, tiny_model)
    assert student_module.make_student(
        student_module.load_plain(tiny_model), recipe, inputs
    ).is_activation_checkpointing
    recomputed = train(tmp_path / "recomputed", recipe=recipe)
    for name, weight in weights(undisturbed).items():
        torch.testing.assert_close(weights(recomputed)[name], weight, rtol=0, atol=1e-5)
    both = make_recipe(gradient_checkpointing=True, precision="bfloat16", reduction="sequence_sum", max_steps=8)
    whole = train(tmp_path / "whole", recipe=both)
    assert {tensor.dtype for tensor in weights(whole).values()} == {torch.float32}
    cut(tmp_path / "cut", 4, recipe=both)
    assert_same(train(tmp_path / "cut", recipe=both), whole)
    losses = [entry["loss"] for entry in read_json_lines(whole / "history.jsonl") if "loss" in entry]
    assert losses[-1] < losses[0]


def test_clip_ranges_are_applied_once_before_training(train, tiny_model, tmp_path):
    name = "model.layers.0.mlp.up_proj"
    weight = load_file(tiny_model / "model.safetensors")[f"{name}.weight"]
    groups = weight.view(len(weight), -1, 32)
    tensors = {f"{name}.max": groups.amax(-1, keepdim=True) * 0.5, f"{name}.min": groups.amin(-1, keepdim=True) * 0.5}
    save_file(tensors, tmp_path / "clip.safetensors")
    recipe = make_recipe(learning_rate=1e-12, max_steps=1)
    after = weights(train(tmp_path / "train", recipe=recipe, clip=tmp_path / "clip.safetensors"))
    expected = groups.clamp(tensors[f"{name}.min"], tensors[f"{name}.max"]).view_as(weight)
    torch.testing.assert_close(after[f"{name}.weight"], expected, rtol=0, atol=1e-9)
    other = "model.layers.0.mlp.down_proj.weight"
    torch.testing.assert_close(after[other], load_file(tiny_model / "model.safetensors")[other], rtol=0, atol=1e-9)


def test_the_definitions_of_gamma(train, tmp_path, undisturbed):
    found = {"paper": read_json(undisturbed / "gamma.json")["gamma"]}
    for name, changes in {
        "reference": {"gamma": "reference"},
        "reference sum": {"gamma": "reference", "gamma_reference_sum": True},
        "few": {"gamma_samples": 4},
        "fixed": {"gamma": 0.25},
    }.items():
        output = train(tmp_path / name, recipe=make_recipe(max_steps=1, gamma_batches=5, **changes))
        found[name] = read_json(output / "gamma.json")["gamma"]
    assert found["fixed"] == 0.25
    assert len(set(found.values())) == 5
    assert found["reference"] < found["reference sum"] < found["reference"] * 1.5


@pytest.fixture
def no_weights(monkeypatch):
    """Loading any weight fails the test."""

    class Refused:
        @staticmethod
        def from_pretrained(*_, **__):
            raise AssertionError("weights are loaded")

    for module in (student_module, teacher_module):
        monkeypatch.setattr(module, "AutoModelForCausalLM", Refused)


@pytest.mark.usefixtures("no_weights")
def test_vocabularies_that_differ_are_refused_before_any_weight_is_loaded(train, tiny_model, tmp_path):
    other = write_model(tmp_path / "other", vocab_size=120)
    short = write_model(tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    for teacher in (other, short):
        with pytest.raises(InputError, match=r"the vocabularies of student .*tiny and teacher .* differ") as error:
            train(tmp_path / "train", teacher=teacher)
        assert error.value.exit_code == 2
    write_token_file(tmp_path / "tokens", [4, 5], vocabulary=128)
    with pytest.raises(InputError, match=r"the tokens .* were written with another vocabulary than that of .*tiny"):
        train(tmp_path / "train", tokens=tmp_path / "tokens")
    assert not (tmp_path / "train").exists()


def test_a_teacher_whose_head_is_padded_teaches_the_same(train, undisturbed, tiny_model, tmp_path):
    """Rows that stand for no token: they must not get probability, and the student has none of them."""
    padded = shutil.copytree(tiny_model, tmp_path / "padded")
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    model.resize_token_embeddings(160, mean_resizing=False)
    model.save_pretrained(padded)
    output = train(tmp_path / "train", teacher=padded, recipe=make_recipe(max_steps=4))
    known, found = (read_json(path / "gamma.json")["gamma"] for path in (undisturbed, output))
    assert found == pytest.approx(known, rel=1e-5)
    losses = [
        [entry["loss"] for entry in read_json_lines(path / "history.jsonl") if "loss" in entry][:4]
        for path in (undisturbed, output)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.usefixtures("no_weights")
def test_bad_input_is_one_line_before_any_weight_is_loaded(train, tokens, tiny_model, tmp_path):
    damaged = shutil.copytree(tokens, tmp_path / "damaged")
    path = damaged / "tokens.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    cases = [
        ({"model": tmp_path / "nowhere"}, r"nowhere: no config\.json there"),
        ({"teacher": tmp_path / "nowhere"}, r"nowhere: no config\.json there"),
        ({"tokens": tmp_path}, r"not a finished token file; give the output directory of the stage tokenize"),
        ({"tokens": damaged}, r"tokens\.safetensors: damaged or missing .* delete .*damaged and run again"),
        ({"clip": tmp_path / "nowhere"}, r"nowhere: no such file or directory"),
        ({"warm_start": tmp_path / "nowhere"}, r"training\.warm_start: this recipe takes no --warm-start"),
        ({"cache": (tmp_path,)}, r"training\.teacher: live; drop --cache, or set it to cached"),
        ({"recipe": make_recipe(teacher="cached")}, r"training\.teacher: cached; give every shard of the stage"),
        ({"recipe": make_recipe(max_length=8)}, r"holds a sequence of \d+ tokens, more than max_length \(8\)"),
        ({"tokens": tokenize_mix(tmp_path / "empty", tiny_model, samples=0)}, "the mix has only 0 samples"),
    ]
    for number, (changes, message) in enumerate(cases):
        with pytest.raises(InputError, match=message) as error:
            train(tmp_path / str(number) / "train", **changes)
        assert error.value.exit_code == 2
        assert "\n" not in str(error.value)


def test_a_group_size_that_does_not_divide_is_refused_before_the_teacher_runs(train, tmp_path, monkeypatch):
    monkeypatch.setattr(gamma, "measure", None)
    with pytest.raises(InputError, match="48") as error:
        train(tmp_path / "train", recipe=make_recipe({"group_size": 48}))
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_another_teacher(train, undisturbed, tmp_path):
    teacher = write_model(tmp_path / "teacher", seed=9)
    output = train(tmp_path / "train", teacher=teacher, recipe=make_recipe(max_steps=4))
    assert read_json(output / "gamma.json") != read_json(undisturbed / "gamma.json")
