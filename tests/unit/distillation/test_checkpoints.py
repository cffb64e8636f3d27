"""Training checkpoints: whole or not counted, the best one kept, the rest pruned."""

import json
import logging

import pytest

from bitdistiller.distillation import checkpoints
from bitdistiller.errors import InputError
from bitdistiller.stages.disk import is_disk_full


def make(root, step, losses=None, sealed=True):
    """A checkpoint of `step` whose history has evaluation `losses` by step."""
    path = root / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights" * step)
    history = [{"step": n, "loss": 1.0} for n in range(1, step + 1)]
    history += [{"step": n, "evaluation_loss": loss} for n, loss in (losses or {}).items()]
    (path / "optimizer.pt").write_bytes(b"moments" * step)
    (path / "state.json").write_text(json.dumps({"step": step, "history": history}))
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
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
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


def test_dropping_the_optimizer_leaves_whole_checkpoints_without_it(tmp_path):
    for step in (4, 8):
        (make(tmp_path, step, sealed=False) / "shards").mkdir()
        (tmp_path / f"checkpoint-{step}" / "shards" / "0_optim_states.pt").write_bytes(b"moments")
        checkpoints.seal(tmp_path / f"checkpoint-{step}")
    checkpoints.drop_optimizer(tmp_path, ("optimizer.pt", "shards/*optim_states.pt"))
    for path in checkpoints.steps(tmp_path).values():
        assert checkpoints.is_whole(path)
        assert sorted(p.name for p in path.rglob("*") if p.is_file()) == [
            "COMPLETE.json",
            "model.safetensors",
            "state.json",
        ]


def test_dropping_the_optimizer_may_be_cut_anywhere(tmp_path, monkeypatch):
    """Between the marker and the files a checkpoint is whole with more in it than it needs."""
    make(tmp_path, 4)

    unlink = type(tmp_path).unlink

    def cut(path, **options):
        if path.name == "optimizer.pt":
            raise KeyboardInterrupt(path)
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "unlink", cut)
        with pytest.raises(KeyboardInterrupt, match=r"optimizer\.pt"):
            checkpoints.drop_optimizer(tmp_path, ("optimizer.pt",))
    assert checkpoints.is_whole(tmp_path / "checkpoint-4")
    checkpoints.drop_optimizer(tmp_path, ("optimizer.pt",))
    assert checkpoints.is_whole(tmp_path / "checkpoint-4")


def test_a_checkpoint_of_no_use_is_passed_over_like_a_damaged_one(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    make(tmp_path, 4)
    (make(tmp_path, 8, sealed=False) / "optimizer.pt").unlink()
    checkpoints.seal(tmp_path / "checkpoint-8")
    found = checkpoints.newest_whole(tmp_path, lambda path: (path / "optimizer.pt").exists())
    assert found == tmp_path / "checkpoint-4"
    assert "checkpoint of step 8 has no optimizer state to go on with; going back" in caplog.messages


@pytest.mark.parametrize("sealed", [True, False])
def test_a_full_disk_takes_only_what_is_not_whole(tmp_path, sealed):
    make(tmp_path, 4)
    newest = make(tmp_path, 8, sealed=sealed)
    error = checkpoints.disk_full(newest)
    kept = 8 if sealed else 4
    assert list(checkpoints.steps(tmp_path))[-1] == kept
    assert f"the disk is full; the checkpoint of step {kept} is whole; make room, then run the same" in str(error)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(13, "Permission denied"), False),
        (InputError("no space left for another opinion"), False),
    ],
)
def test_full_disks_in_the_words_of_libraries(tmp_path, error, full):
    assert is_disk_full(error) == full
    assert checkpoints.is_disk_full(error, tmp_path) == full
