"""A full disk: one line for the user, the first error and not what follows from it, and no display that stops work."""

import errno
import logging

import pytest

from bitdistiller.errors import DiskFull, InputError
from bitdistiller.stages import open_stage
from bitdistiller.stages.attempts import Attempts
from bitdistiller.stages.progress import Progress


def full(path="somewhere"):
    return OSError(errno.ENOSPC, "No space left on device", str(path))


def attempt(output, error):
    with open_stage("toy", version=1, recipe={}, inputs={}, output=output) as stage:
        stage.output_file("half").write_text("half")
        raise error


@pytest.mark.parametrize("error", [full("a/file"), RuntimeError("a/file: I/O error: No space left on device")])
def test_a_stage_tells_of_a_full_disk_in_one_line(tmp_path, error):
    with pytest.raises(DiskFull, match="the disk is full; what was saved is whole; make room, then run") as caught:
        attempt(tmp_path / "out", error)
    assert (caught.value.exit_code, caught.value.__cause__) == (1, error)
    assert "\n" not in str(caught.value)
    (record,) = Attempts(tmp_path / "out.work").history()
    assert (record["outcome"], record["exception"]) == ("disk", f"DiskFull: {caught.value}")
    assert [path.name for path in tmp_path.iterdir()] == ["out.work"]


def test_a_full_disk_is_no_failure_that_the_gate_counts(tmp_path):
    for _ in range(6):
        with pytest.raises(DiskFull):
            attempt(tmp_path / "out", full("weights"))
    with open_stage("toy", version=1, recipe={}, inputs={}, output=tmp_path / "out") as stage:
        stage.output_file("whole").write_text("whole")
        stage.finish()


def test_the_file_is_named_where_it_is_known(tmp_path):
    with pytest.raises(DiskFull, match=r"^a/file: the disk is full"):
        attempt(tmp_path / "out", full("a/file"))


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (InputError("no space left"), PermissionError(13, "Permission denied"), KeyError("a")):
        with pytest.raises(type(error)) as caught:
            attempt(tmp_path / "out", error)
        assert caught.value is error
        Attempts(tmp_path / "out.work").clear()


def test_an_attempts_log_that_cannot_be_written_hides_no_error(tmp_path, monkeypatch):
    def end(*_):
        raise full("attempts.jsonl")

    monkeypatch.setattr(Attempts, "end", end)
    with pytest.raises(DiskFull, match=r"^weights: the disk is full"):
        attempt(tmp_path / "out", full("weights"))


def test_a_progress_file_that_cannot_be_written_stops_no_work(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with Progress("train", 3, file=tmp_path / "missing" / "progress.json") as progress:
        progress.advance(3)
    assert "train: 3/3 steps" in caplog.messages[-1]
