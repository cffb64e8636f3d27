"""Losses that are not numbers: skipped, counted, given up after a while, with a good checkpoint left."""

from dataclasses import replace

import pytest
from helpers.mixes import STEPS, make_recipe
from helpers.trainings import assert_same, saved, state

from bitdistiller.distillation import checkpoints
from bitdistiller.distillation.loop import Loop
from bitdistiller.distillation.teacher import LiveTeacher
from bitdistiller.errors import DeadlineReached, Diverged
from bitdistiller.stages.deadline import Deadline
from bitdistiller.stages.files import read_json, read_json_lines


@pytest.fixture
def poison(monkeypatch):
    """`poison(steps)`: in these steps (from 1) the teacher knows nothing; gives the patch, to be undone."""

    def call(steps):
        take, signal, now = Loop._step, LiveTeacher.signal, []

        def watched(loop, index):
            now.append(index + 1)
            try:
                return take(loop, index)
            finally:
                now.clear()

        def poisoned(teacher, batch, keep):
            found = signal(teacher, batch, keep)
            return replace(found, hidden=found.hidden * float("nan")) if now and now[0] in steps else found

        monkeypatch.setattr(Loop, "_step", watched)
        monkeypatch.setattr(LiveTeacher, "signal", poisoned)
        return monkeypatch

    return call


def test_a_learning_rate_that_is_much_too_high(train, tmp_path):
    recipe = make_recipe(learning_rate=1e18, evaluate_every=1)
    message = r"train: diverged at step 6: loss or gradient not finite for 5 steps in a row .* at step 1; try a lower"
    with pytest.raises(Diverged, match=message) as error:
        train(tmp_path / "train", recipe=recipe)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    assert not (tmp_path / "train").exists()
    assert saved(tmp_path / "train") == [1]
    assert checkpoints.is_whole(state(tmp_path / "train") / "checkpoint-1")


def test_what_made_a_run_diverge_has_passed_when_it_runs_again(train, undisturbed, poison, tmp_path):
    """Nothing is saved while steps are skipped: the run goes on before the first of them, and nothing is missing."""
    patch = poison(range(7, 100))
    with pytest.raises(Diverged, match=r"diverged at step 11: .* the last finite loss was .* at step 6"):
        train(tmp_path / "train")
    assert saved(tmp_path / "train") == [4]
    assert checkpoints.is_whole(state(tmp_path / "train") / "checkpoint-4")
    patch.undo()
    train(tmp_path / "train")
    assert_same(tmp_path / "train", undisturbed)


def test_a_few_bad_steps_are_skipped_and_counted(train, poison, tmp_path, monkeypatch):
    """Steps 7, 8 and 10; an evaluation and a save are due after step 8, and are left to step 12."""
    poison({7, 8, 10})
    output = train(tmp_path / "train")
    details = read_json(output / "provenance.json")["details"]
    assert (details["skipped_steps"], details["steps_taken"]) == (3, STEPS)
    divergence = checkpoints.read_state(state(output) / f"checkpoint-{STEPS}")["divergence"]
    assert (divergence["skipped"], divergence["in_a_row"], divergence["finite_step"]) == (3, 0, STEPS)
    history = list(read_json_lines(output / "history.jsonl"))
    assert [event["step"] for event in history if "loss" in event and event["loss"] is None] == [7, 8, 10]
    assert [event["step"] for event in history if "evaluation_loss" in event] == [4, 12, 16, 18]

    calls = iter(range(1, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(Deadline, "is_due", lambda _: next(calls) >= 8)
        with pytest.raises(DeadlineReached):
            train(tmp_path / "cut")
    assert saved(tmp_path / "cut") == [4, 8]
    train(tmp_path / "cut")
    assert_same(tmp_path / "cut", output)


def test_a_skipped_step_changes_no_weight(train, poison, tmp_path):
    poison({2})
    recipe = {"max_steps": 2, "evaluation_fraction": 0.0, "evaluate_every": 1}
    output = train(tmp_path / "train", recipe=make_recipe(**recipe))
    first, second = (state(output) / f"checkpoint-{step}" / "weights.safetensors" for step in (1, 2))
    assert first.read_bytes() == second.read_bytes()
