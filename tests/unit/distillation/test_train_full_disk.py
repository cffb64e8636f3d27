"""The stage `train` with its work directory on a disk that runs full: one line says so, and nothing saved is lost."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.mixes import make_recipe
from helpers.train_server import TrainServer
from helpers.trainings import assert_same

from bitdistiller.distillation import checkpoints

RECIPE = make_recipe(max_steps=8, evaluate_every=2)
DISK_MEGABYTES = 16
MOUNTED = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
"""A mount namespace of its own, for which no privilege is needed where the kernel allows it."""
AND_RUN = 'mount -t tmpfs -o size="$1"m disk "$2" && shift 2 && exec "$@"'


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """`(server, directory, view)`: what the server sees as `directory` is a small disk, seen from here as `view`."""
    directory = tmp_path_factory.mktemp("disk")
    prefix = [*MOUNTED, AND_RUN, "sh", DISK_MEGABYTES, directory]
    if shutil.which("unshare") is None or subprocess.run([*map(str, prefix), "true"], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted in a namespace here")
    with TrainServer(tmp_path_factory.mktemp("server") / "log", prefix) as server:
        yield server, directory, Path(f"/proc/{server.process.pid}/root{directory}")


@pytest.fixture(scope="module")
def inputs(tiny_model, tokens):
    return {"model": tiny_model, "teacher": tiny_model, "tokens": tokens}


@pytest.fixture(scope="module")
def undisturbed(disk, inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "train"
    assert disk[0](RECIPE, inputs, output)["code"] == 0
    return output


@pytest.fixture
def attempt(disk, inputs, tmp_path):
    """`attempt(**doom)`: one with its work directory on the small disk; `.view` of that, `.ballast` in its way."""
    server, directory, view = disk

    def call(**doom):
        return server(RECIPE, inputs, tmp_path / "train", work=str(directory / "work"), **doom)

    call.view, call.ballast, call.output = view / "work", view / "ballast", tmp_path / "train"
    call.ballast_inside = str(directory / "ballast")
    yield call
    for path in view.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def assert_told(answer, message):
    assert answer["code"] == 1, answer
    assert message in answer["error"]
    assert "make room, then run the same command to go on" in answer["error"]
    assert "\n" not in answer["error"]


def assert_goes_on(attempt, undisturbed):
    attempt.ballast.unlink()
    assert attempt()["code"] == 0
    assert_same(attempt.output, undisturbed)


def saved(attempt):
    return {step: checkpoints.is_whole(path) for step, path in checkpoints.steps(attempt.view / "state").items()}


def test_no_room_for_the_second_checkpoint(attempt, undisturbed):
    checkpoint = 3 * (undisturbed / "student" / "model.safetensors").stat().st_size
    free = int(1.5 * checkpoint)
    attempt.ballast.write_bytes(bytes((DISK_MEGABYTES << 20) - free))
    assert_told(attempt(), "checkpoint-4: the disk is full; the checkpoint of step 2 is whole")
    assert saved(attempt) == {2: True}
    assert not attempt.output.exists()
    assert_goes_on(attempt, undisturbed)


@pytest.mark.parametrize(("step", "left"), [(1, []), (3, [2]), (7, [4, 6]), ("end", [6, 8])])
def test_the_disk_runs_full_between_two_checkpoints(attempt, undisturbed, step, left):
    """Under the history, TensorBoard's events, the attempts log and everything else that is small."""
    assert_told(attempt(fill=attempt.ballast_inside, step=step), "the disk is full")
    assert saved(attempt) == dict.fromkeys(left, True)
    assert_goes_on(attempt, undisturbed)


def test_a_disk_that_is_full_from_the_start(attempt, undisturbed):
    attempt.ballast.write_bytes(bytes(DISK_MEGABYTES << 20)[: -(1 << 13)])
    assert_told(attempt(), "the disk is full")
    assert_goes_on(attempt, undisturbed)
