"""The stage `train` with its work directory on a disk that runs full: one line says so, and nothing saved is lost."""

import shutil

import pytest
from helpers.train_server import DISK_MEGABYTES
from helpers.trainings import assert_same

from bitdistiller.distillation import checkpoints


@pytest.fixture
def attempt(server, short, inputs, tmp_path):
    """`attempt(**doom)`: one with its work directory on the small disk; `.work` of that, `.ballast` in its way."""
    if server.disk is None:
        pytest.skip("no tmpfs can be mounted in a namespace here")
    inside, outside = server.disk.inside, server.disk.outside

    def call(**doom):
        return server(short[0], inputs, tmp_path / "train", work=str(inside / "work"), **doom)

    call.work, call.ballast, call.output = outside / "work", outside / "ballast", tmp_path / "train"
    call.ballast_inside = str(inside / "ballast")
    yield call
    for path in outside.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def assert_told(answer, message):
    assert answer["code"] == 1, answer
    assert message in answer["error"]
    assert "make room, then run the same command to go on" in answer["error"]
    assert "\n" not in answer["error"]


def assert_goes_on(attempt, short):
    attempt.ballast.unlink()
    assert attempt()["code"] == 0
    assert_same(attempt.output, short[1])


def saved(attempt):
    return {step: checkpoints.is_whole(path) for step, path in checkpoints.steps(attempt.work / "state").items()}


def test_no_room_for_the_second_checkpoint(attempt, short):
    checkpoint = 3 * (short[1] / "student" / "model.safetensors").stat().st_size
    free = int(1.5 * checkpoint)
    attempt.ballast.write_bytes(bytes((DISK_MEGABYTES << 20) - free))
    assert_told(attempt(), "checkpoint-4: the disk is full; the checkpoint of step 2 is whole")
    assert saved(attempt) == {2: True}
    assert not attempt.output.exists()
    assert_goes_on(attempt, short)


@pytest.mark.parametrize(("step", "left"), [(1, []), (3, [2]), (7, [4, 6]), ("end", [6, 8])])
def test_the_disk_runs_full_between_two_checkpoints(attempt, short, step, left):
    """Under the history, TensorBoard's events, the attempts log and everything else that is small."""
    assert_told(attempt(fill=attempt.ballast_inside, step=step), "the disk is full")
    assert saved(attempt) == dict.fromkeys(left, True)
    assert_goes_on(attempt, short)


def test_a_disk_that_is_full_from_the_start(attempt, short):
    attempt.ballast.write_bytes(bytes(DISK_MEGABYTES << 20)[: -(1 << 13)])
    assert_told(attempt(), "the disk is full")
    assert_goes_on(attempt, short)
