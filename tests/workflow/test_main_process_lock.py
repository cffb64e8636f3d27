"""Two main processes on one results directory, one that is killed, and the way back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.processes import wait_for
from helpers.workflow_copy import ROOT, copy_of_the_repository

from bitdistiller.stages.attempts import Attempts
from bitdistiller.stages.lock import RunLock

TARGET = "results/m/base/digest.json"
WORK = Path("work/m/base")
AGAIN = "the same snakemake command goes on from here"


class Directory:
    """A clone in which Snakemake and our commands are called; what they print goes to files."""

    def __init__(self, path: Path) -> None:
        self.path, self.calls = path, 0

    def start(self, *module: str) -> subprocess.Popen[bytes]:
        """`python -m MODULE ...`, a session of its own."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        self.calls += 1
        with self.output(self.calls).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=self.path,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *module: str) -> tuple[int, list[str]]:
        """Exit code and lines of a command."""
        code = self.start(*module).wait(300)
        return code, self.output(self.calls).read_text().splitlines()

    def output(self, call: int) -> Path:
        """What the call with this number printed."""
        return self.path / f"output-{call}.txt"

    def snakemake(self, *arguments: str) -> tuple[int, list[str]]:
        """Snakemake to its end, on one core."""
        return self.run("snakemake", "--cores", "1", *arguments)

    def errors(self, lines: list[str]) -> list[str]:
        """The lines meant for the user; the output has no other error and no traceback."""
        found = [line for line in lines if line.startswith("error: ")]
        text = "\n".join(lines)
        assert "Traceback" not in text
        assert "LockException" not in text
        assert "cannot be locked" not in text
        return found


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """A clone of the repository with an experiment of seconds."""
    return Directory(copy_of_the_repository(tmp_path / "clone"))


@pytest.fixture
def held(directory: Directory) -> Iterator[RunLock]:
    """The run lock of the first stage, so that the stage waits for as long as a test wants."""
    lock = RunLock(directory.path / WORK)
    lock.acquire()
    yield lock
    lock.release()


def start_main(directory: Directory) -> subprocess.Popen[bytes]:
    """A main process whose first job has started and waits for the run lock."""
    main = directory.start("snakemake", "--cores", "1", TARGET)
    logs = directory.path / "logs" / "pretrain_demo"
    wait_for(lambda: any("waiting for" in path.read_text() for path in logs.glob("*.log")), main, 120)
    return main


def test_the_second_gets_one_line_and_the_first_goes_on(directory: Directory, held: RunLock) -> None:
    with start_main(directory) as main:
        code, lines = directory.snakemake(TARGET)
        assert code == 2
        (line,) = directory.errors(lines)
        assert f"process {main.pid} of " in line
        assert "Building DAG" not in "\n".join(lines)
        assert directory.snakemake("--dry-run", TARGET)[0] == 0
        assert directory.snakemake("--unlock")[0] == 2
        assert directory.run("bitdistiller", "unlock")[0] == 2
        assert len(list((directory.path / ".snakemake" / "locks").iterdir())) == 1
        held.release()
        assert main.wait(300) == 0
    assert (directory.path / TARGET).exists()
    code, lines = directory.run("bitdistiller", "unlock")
    assert (code, lines[0], lines[-1]) == (0, "nothing was locked", AGAIN)
    assert directory.snakemake(TARGET)[0] == 0


def test_after_kill_9_unlock_and_the_same_command_finish_without_work_done_twice(
    directory: Directory, held: RunLock
) -> None:
    with start_main(directory) as main:
        main.kill()
    code, lines = directory.snakemake(TARGET)
    assert code == 2
    (line,) = directory.errors(lines)
    assert f"process {main.pid} of " in line
    assert "run `bitdistiller unlock`, then the same command" in line

    held.release()
    wait_for(lambda: (directory.path / WORK / "attempts.jsonl").exists(), seconds=120)
    code, lines = directory.run("bitdistiller", "unlock")
    assert code == 0
    assert lines[0].startswith(f"unlocked; process {main.pid} of ")
    assert lines[-1] == AGAIN
    assert any("still runs: work/m/base" in line for line in lines)

    code, lines = directory.snakemake(TARGET)
    assert code == 0, lines
    first, *others = Attempts(directory.path / WORK).history()
    assert first["outcome"] == "finished"
    assert len(others) == 1
    assert others[0]["commits_before"] == others[0]["commits_after"]


@pytest.mark.slow
def test_the_processes_that_a_killed_run_left_can_be_ended(directory: Directory, held: RunLock) -> None:
    with start_main(directory) as main:
        main.send_signal(signal.SIGKILL)
    held.release()
    wait_for(lambda: (directory.path / WORK / "attempts.jsonl").exists(), seconds=120)
    code, lines = directory.run("bitdistiller", "unlock", "--cancel-jobs")
    assert code == 0
    assert any("asked to save and stop: work/m/base" in line for line in lines)
    assert directory.snakemake(TARGET)[0] == 0
    outcomes = [attempt["outcome"] for attempt in Attempts(directory.path / WORK).history()]
    assert outcomes == ["deadline", "finished"]


def test_unlock_where_snakemake_never_ran(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    code, lines = directory.run("bitdistiller", "unlock")
    assert code == 2
    assert "no .snakemake here" in lines[-1]


def test_a_misspelt_workflow_profile_is_one_line(directory: Directory) -> None:
    code, lines = directory.snakemake("--workflow-profile", "slrum", "--dry-run")
    assert code == 2
    assert directory.errors(lines) == [
        "error: --workflow-profile slrum: no such profile; accepted: default, slurm, or a path"
    ]
