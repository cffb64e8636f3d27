"""Training checkpoints: whole or not counted, the best one kept, the rest pruned."""

import json
import logging

import pytest

from bitdistiller.distillation import checkpoints


def make(root, step, losses=None, sealed=True):
    """A checkpoint of `step` whose history has evaluation `losses` by step."""
    path = root / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights" * step)
    history = [{"step": n, "loss": 1.0} for n in range(1, step + 1)]
    history += [{"step": n, "eval_loss": loss} for n, loss in (losses or {}).items()]
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": history}))
    if sealed:
        checkpoints.seal(path)
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    path.write_bytes(b"W" + path.read_bytes()[1:])


def remove(path):
    path.unlink()


def test_a_sealed_checkpoint_is_whole(tmp_path):
    assert checkpoints.is_whole(make(tmp_path, 4))
    assert not checkpoints.is_whole(make(tmp_path, 8, sealed=False))


@pytest.mark.parametrize("damage", [truncate, flip, remove])
@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json"])
def test_any_damage_is_seen(tmp_path, damage, name):
    path = make(tmp_path, 4)
    damage(path / name)
    assert not checkpoints.is_whole(path)


def test_the_newest_whole_one_is_taken_and_damaged_ones_go_with_a_warning(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    for step in (4, 8, 12):
        make(tmp_path, step)
    make(tmp_path, 100, sealed=False)
    flip(tmp_path / "checkpoint-12" / "model.safetensors")
    assert checkpoints.newest_whole(tmp_path) == tmp_path / "checkpoint-8"
    assert [record.args for record in caplog.records] == [(100,), (12,)]
    assert "incomplete or damaged; going back to the one before" in caplog.messages[0]
    assert list(checkpoints.steps(tmp_path)) == [4, 8]


def test_no_checkpoint_at_all(tmp_path):
    (tmp_path / "checkpoint-best").mkdir()
    assert checkpoints.newest_whole(tmp_path) is None


def test_the_best_step_is_the_lowest_finite_loss_and_the_first_of_equals(tmp_path):
    losses = {1: float("nan"), 2: 0.9, 4: 0.7, 6: 0.7, 8: 0.8, 9: float("inf")}
    assert checkpoints.best_step(make(tmp_path, 9, losses)) == 4
    assert checkpoints.best_step(make(tmp_path, 10)) == 10
    assert checkpoints.best_step(make(tmp_path, 11, {11: float("nan")})) == 11


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_prune_keeps_the_newest_and_the_best(tmp_path, keep):
    losses = {}
    for step, loss in ((2, 0.9), (4, 0.5), (6, 0.7), (8, 0.8), (10, 0.6)):
        losses[step] = loss
        make(tmp_path, step, losses)
        checkpoints.prune(tmp_path, keep)
    assert list(checkpoints.steps(tmp_path)) == sorted({4, *[2, 4, 6, 8, 10][-keep:]})


def test_prune_drops_a_best_one_that_is_beaten(tmp_path):
    make(tmp_path, 2, {2: 0.5})
    make(tmp_path, 4, {2: 0.5, 4: 0.4})
    checkpoints.prune(tmp_path, 1)
    assert list(checkpoints.steps(tmp_path)) == [4]


def test_a_damaged_best_one_gives_way_to_the_next_best(tmp_path, caplog):
    losses = {2: 0.9, 4: 0.5, 6: 0.7, 8: 0.8}
    for step in (4, 6, 8):
        make(tmp_path, step, losses)
    newest = tmp_path / "checkpoint-8"
    assert checkpoints.best_whole(tmp_path, newest) == tmp_path / "checkpoint-4"
    flip(tmp_path / "checkpoint-4" / "model.safetensors")
    assert checkpoints.best_whole(tmp_path, newest) == tmp_path / "checkpoint-6"
    assert "checkpoint of step 4 is damaged" in caplog.text
    flip(tmp_path / "checkpoint-6" / "model.safetensors")
    assert checkpoints.best_whole(tmp_path, newest) == newest
