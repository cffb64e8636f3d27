"""The stage `train`: killed, cut short or damaged it ends with the weights of an undisturbed run, bit for bit."""

import json
import logging
import signal
from pathlib import Path

import pytest
import torch
from helpers.mixes import STEPS, make_recipe, write_mix
from helpers.processes import finish, run, start, wait_for
from helpers.tiny import write_model
from safetensors.torch import load_file, save_file

from bitdistiller.distillation import checkpoints
from bitdistiller.distillation import stage as train_stage
from bitdistiller.errors import DeadlineReached, InputError
from bitdistiller.recipes import as_text
from bitdistiller.stages import verify
from bitdistiller.stages.deadline import Deadline
from bitdistiller.stages.files import read_json, read_json_lines

DOOMED = Path(__file__).parents[2] / "helpers" / "doomed_train.py"
SAME = ("student/model.safetensors", "gamma.json", "history.jsonl", "digest.json")


@pytest.fixture(scope="module")
def train(tiny_model, mix):
    """`train(output, recipe=..., ...)`: the stage in this process; its output directory."""

    def call(output, recipe=None, **changes):
        settings = {"model": tiny_model, "teacher": None, "mix": mix, "clip": None, "work": None, "time_budget": None}
        train_stage.run(recipe or make_recipe(), output=output, **{**settings, **changes})
        return output

    return call


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory):
    """The output of a run that nothing happened to."""
    return train(tmp_path_factory.mktemp("undisturbed") / "train")


def state(output):
    return output.with_name(f"{output.name}.work") / "state"


def saved(output):
    """Steps of the checkpoints that are there, whole or not."""
    return list(checkpoints.steps(state(output)))


def assert_same(output, undisturbed):
    verify(output)
    for name in SAME:
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes(), name


def weights(output):
    return load_file(output / "student" / "model.safetensors")


class Cut(BaseException):
    """Ends the process's work at once, as a kill does, but for the test's own process."""


@pytest.fixture
def cut(train, monkeypatch):
    """`cut(output, step, **changes)`: train until the checkpoint of `step` is sealed, and no further."""

    def call(output, step, **changes):
        real = checkpoints.prune

        def prune(root, keep):
            real(root, keep)
            if (root / f"checkpoint-{step}").exists():
                raise Cut

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "prune", prune)
            with pytest.raises(Cut):
                train(output, **changes)
        assert saved(output)[-1] == step
        assert not output.exists()

    return call


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
    assert read_json(checkpoint / "gamma.json") == gamma
    assert read_json(undisturbed / "provenance.json")["details"]["tokens_this_attempt"] > 0


def test_kill_in_the_middle_then_rerun_is_bit_identical(train, undisturbed, tiny_model, mix, tmp_path):
    command = ["-m", "bitdistiller", "train", "--model", tiny_model, "--mix", mix, "--recipe", as_text(make_recipe())]
    process = start(*command, "--output", tmp_path / "train")
    marker = state(tmp_path / "train") / "checkpoint-4" / checkpoints.MARKER
    wait_for(marker.exists, process, 120)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert not (tmp_path / "train").exists()
    train(tmp_path / "train")
    assert_same(tmp_path / "train", undisturbed)
    attempts = read_json(tmp_path / "train" / "provenance.json")["attempts"]
    assert [attempt.get("outcome") for attempt in attempts] == [None, "finished"]


@pytest.mark.parametrize("part", ["weights", "seal"])
def test_kill_while_a_checkpoint_is_written(train, undisturbed, tiny_model, mix, tmp_path, part, caplog):
    caplog.set_level(logging.WARNING)
    code, output = run(DOOMED, 8, part, as_text(make_recipe()), tiny_model, mix, tmp_path / "train")
    assert code == -signal.SIGKILL, output
    assert saved(tmp_path / "train") == [4, 8]
    assert (state(tmp_path / "train") / "checkpoint-8" / "model.safetensors").exists()
    train(tmp_path / "train")
    assert "checkpoint of step 8 is incomplete or damaged; going back to the one before" in caplog.text
    assert_same(tmp_path / "train", undisturbed)


def test_sigterm_ends_with_75_and_the_next_attempt_goes_on(train, undisturbed, tiny_model, mix, tmp_path):
    command = ["-m", "bitdistiller", "train", "--model", tiny_model, "--mix", mix, "--recipe", as_text(make_recipe())]
    process = start(*command, "--output", tmp_path / "train")
    wait_for((state(tmp_path / "train") / "gamma.json").exists, process, 120)
    process.terminate()
    code, output = finish(process)
    assert code == 75, output
    assert "stopped: asked to stop by SIGTERM; progress is saved and the same command goes on from here" in output
    assert len(saved(tmp_path / "train")) >= 1
    train(tmp_path / "train")
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
    path = state(tmp_path / "train") / "checkpoint-12" / "model.safetensors"
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
    monkeypatch.setattr(train_stage.DistillationTrainer, "compute_loss", None)
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
    """A learning rate so high that the last evaluation is worse than the one before."""
    recipe = make_recipe(learning_rate=0.03, max_steps=8, evaluate_every=2, keep_checkpoints=1)
    output = train(tmp_path / "train", recipe=recipe)
    evaluations = {
        entry["step"]: entry["evaluation_loss"]
        for entry in read_json_lines(output / "history.jsonl")
        if "evaluation_loss" in entry
    }
    best = min(evaluations, key=evaluations.get)
    assert best < 8
    assert saved(output) == [best, 8]
    assert read_json(output / "digest.json")["counts"]["best_step"] == best
    files = [state(output) / f"checkpoint-{step}" / "model.safetensors" for step in (best, 8)]
    student = (output / "student" / "model.safetensors").read_bytes()
    assert [student == file.read_bytes() for file in files] == [True, False]


def test_without_evaluation_the_last_checkpoint_is_the_result(train, tmp_path):
    output = train(tmp_path / "train", recipe=make_recipe(evaluation_fraction=0.0, max_steps=6))
    assert read_json(output / "digest.json")["counts"] == {"best_step": 6, "steps": 6, "evaluation_loss": None}
    last = state(output) / "checkpoint-6" / "model.safetensors"
    assert (output / "student" / "model.safetensors").read_bytes() == last.read_bytes()


def test_bfloat16_and_gradient_checkpointing(train, cut, undisturbed, tiny_model, tmp_path):
    """Both run and resume; recomputed activations change nothing, bfloat16 little."""
    recipe = make_recipe(gradient_checkpointing=True)
    assert train_stage._student(recipe, tiny_model, None).is_activation_checkpointing
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

    monkeypatch.setattr(train_stage, "AutoModelForCausalLM", Refused)


@pytest.mark.usefixtures("no_weights")
def test_vocabularies_that_differ_are_refused_before_any_weight_is_loaded(train, tiny_model, tmp_path):
    other = write_model(tmp_path / "other", vocab_size=120)
    same_tokens = write_model(tmp_path / "padded")
    config = json.loads((same_tokens / "config.json").read_text())
    (same_tokens / "config.json").write_text(json.dumps({**config, "vocab_size": 256}))
    for teacher in (other, same_tokens):
        with pytest.raises(InputError, match=r"the vocabularies of student .*tiny and teacher .* differ") as error:
            train(tmp_path / "train", teacher=teacher)
        assert error.value.exit_code == 2
    with pytest.raises(InputError, match=r"the mix .* was written with another vocabulary than that of .*tiny"):
        train(tmp_path / "train", mix=write_mix(tmp_path / "mix", vocabulary="another"))
    assert not (tmp_path / "train").exists()


@pytest.mark.usefixtures("no_weights")
def test_bad_input_is_one_line_before_any_weight_is_loaded(train, mix, tiny_model, tmp_path):
    damaged = write_mix(tmp_path / "damaged")
    (damaged / "mix.jsonl").write_text((damaged / "mix.jsonl").read_text()[:-20])
    cases = [
        ({"model": tmp_path / "nowhere"}, r"nowhere: no config\.json there"),
        ({"teacher": tmp_path / "nowhere"}, r"nowhere: no config\.json there"),
        ({"mix": tmp_path}, r"digest\.json is missing; --mix takes the output directory of the stage mix"),
        ({"mix": damaged}, r"mix\.jsonl: damaged or missing .* delete .*damaged and run again"),
        ({"clip": tmp_path / "nowhere"}, r"nowhere: no such file or directory"),
        ({"mix": write_mix(tmp_path / "empty", samples=0)}, "the mix has only 0 samples"),
    ]
    for changes, message in cases:
        with pytest.raises(InputError, match=message):
            train(tmp_path / "train", **changes)


def test_a_group_size_that_does_not_divide_is_refused_before_the_teacher_runs(train, tmp_path, monkeypatch):
    monkeypatch.setattr(train_stage, "paper_gamma", None)
    with pytest.raises(InputError, match="48") as error:
        train(tmp_path / "train", recipe=make_recipe({"group_size": 48}))
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_another_teacher(train, undisturbed, tmp_path):
    teacher = write_model(tmp_path / "teacher", seed=9)
    output = train(tmp_path / "train", teacher=teacher, recipe=make_recipe(max_steps=4))
    assert read_json(output / "gamma.json") != read_json(undisturbed / "gamma.json")
