"""Submitted commands: run, interrupted, brought back under their id, found again; all with real processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers.processes import finish, start, wait_for

from bitdistiller.cluster import attach
from bitdistiller.cluster.attach import SubmittedJob
from bitdistiller.cluster.child import Child
from bitdistiller.cluster.growing_file import GrowingFile
from bitdistiller.cluster.request import Request, parameters
from bitdistiller.cluster.states import slurm_state
from bitdistiller.cluster.submit import make_command, submit
from bitdistiller.cluster.terminal import attach_to, checked, submit_and_show
from bitdistiller.errors import InputError, TryAgain

TESTS = Path(__file__).parents[2]
TOY = "helpers.toy_stage"


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def toy(tmp_path):
    """`toy(*arguments)`: the toy stage as a local job."""

    def run(*arguments):
        job = submit([*map(str, arguments)], Request(), tmp_path / "jobs", "local", module=TOY)
        return SubmittedJob(job.job_id, tmp_path / "jobs")

    return run


def task_of(job: SubmittedJob) -> psutil.Process:
    """The process in which submitit calls our callable."""
    return psutil.Process(int(job.job_id)).children()[0]


def steps(output: Path) -> int:
    return len(list(output.with_name(f"{output.name}.work").glob("*/step-*")))


def test_a_local_job_leaves_outputs_log_and_the_commands_exit_code(toy, tmp_path):
    output = tmp_path / "a b'c $(d)\nüber"
    shown: list[str] = []
    assert toy(output, "--steps", 2).wait(shown.append) == 0
    assert (output / "total.txt").read_text() == "2"
    assert "Job completed successfully" in "".join(shown)
    assert toy("--no-such-option").wait(shown.append) == 2
    assert "the following arguments are required: output" in "".join(shown)


def test_a_command_that_stops_at_its_time_budget_is_started_again(toy, tmp_path):
    job = toy(tmp_path / "out", "--steps", 6, "--sleep", 0.5, "--time-budget", 0.03)
    assert job.wait(lambda _: None) == 0
    attempts = (tmp_path / "out.work" / "attempts.jsonl").read_text()
    assert attempts.count('"deadline"') >= 1
    assert (tmp_path / "out" / "total.txt").read_text() == "6"


def test_the_signal_before_the_walltime_saves_and_brings_the_job_back(toy, tmp_path):
    output = tmp_path / "out"
    job = toy(output, "--steps", 12, "--sleep", 0.3)
    wait_for(lambda: steps(output) >= 2)
    first = task_of(job)
    first.send_signal(signal.SIGUSR2)
    assert job.wait(lambda _: None) == 0
    assert (output / "total.txt").read_text() == "12"
    text = job.log.read_text()
    assert text.count("Starting with JobEnvironment") == 2
    assert text.count(f"job_id={job.job_id}") == 2
    assert '"deadline"' in (tmp_path / "out.work" / "attempts.jsonl").read_text()


def test_a_terminated_local_job_saves_and_ends_with_75(toy, tmp_path):
    output = tmp_path / "out"
    job = toy(output, "--steps", 1000, "--sleep", 0.2)
    wait_for(lambda: steps(output) >= 2)
    os.kill(int(job.job_id), signal.SIGTERM)
    assert job.wait(lambda _: None) == 75
    assert steps(output) >= 2
    assert not (output / "total.txt").exists()


def test_a_killed_job_is_noticed_and_its_command_saves(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(attach, "LATENCY_SECONDS", 0.5)
    output = tmp_path / "out"
    job = toy(output, "--steps", 1000, "--sleep", 0.2)
    wait_for(lambda: steps(output) >= 2)
    task = task_of(job)
    stage = task.children()[0]
    for process in (psutil.Process(int(job.job_id)), task):
        process.kill()
    with pytest.raises(TryAgain, match=f"job {job.job_id} ended without a result"):
        job.wait(lambda _: None)
    wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
    assert '"deadline"' in (tmp_path / "out.work" / "attempts.jsonl").read_text()


def test_attaches_after_the_head_process_was_killed(tmp_path, capfd):
    output = tmp_path / "out"
    head = start(
        *("-m", "bitdistiller", "submit", "--executor", "local", "--folder", "jobs", "--wait", "--"),
        *("options", "train"),
        PYTHONPATH=f"{TESTS.parent}{os.pathsep}{TESTS}",
    )
    wait_for(lambda: list(Path("jobs").glob("[0-9]*/*_submitted.pkl")) != [], head)
    head.kill()
    finish(head)
    job_id = next(Path("jobs").glob("[0-9]*")).name
    assert attach_to(job_id, Path("jobs")) == 0
    assert not output.exists()
    shown = capfd.readouterr()
    assert "training.engine" in shown.out
    assert f"job {job_id} (local): bitdistiller options train" in shown.err


def test_ctrl_c_and_the_end_of_the_session_do_not_reach_a_local_job(toy, tmp_path):
    job = toy(tmp_path / "out", "--steps", 4, "--sleep", 0.3)
    wait_for(lambda: steps(tmp_path / "out") >= 1)
    controller = psutil.Process(int(job.job_id))
    for process in (controller, *controller.children(recursive=True)):
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
    assert job.wait(lambda _: None) == 0


def test_debug_runs_it_here(capfd):
    assert submit_and_show(["options", "nonsense"], Request(), Path("jobs"), "debug", wait=False) == 2
    assert "no stage 'nonsense'" in capfd.readouterr().err


def test_attach_needs_a_job_that_was_submitted(toy, tmp_path):
    job = toy(tmp_path / "out", "--steps", 1)
    with pytest.raises(InputError, match=f"--attach 1: no such job in .*; accepted: {job.job_id}"):
        SubmittedJob("1", tmp_path / "jobs")
    job.wait(lambda _: None)


@pytest.mark.parametrize("words", [["train", "--x", "y z"], ["bitdistiller", "train", "--x", "y z"]])
def test_a_command_may_begin_with_the_programs_name(words):
    assert checked(words, {"train", "submit"}) == ["train", "--x", "y z"]


@pytest.mark.parametrize("words", [None, [], ["bitdistiller"], ["trian"], ["submit", "--", "train"]])
def test_what_is_no_command_is_refused_before_it_is_submitted(words):
    with pytest.raises(InputError, match=r"accepted: evaluate, train$"):
        checked(words, {"train", "submit", "evaluate"})


def test_local_jobs_are_one_process_and_slurm_needs_sbatch(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="--nodes"):
        submit(["check"], Request(nodes=2), tmp_path, "local")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch is not on the PATH; accepted here: local, debug"):
        submit(["check"], Request(), tmp_path, "slurm")


def test_the_request_in_words_of_slurm():
    request = Request(partition="gpu", gpus=2, mem_mb=500, minutes=7, nodes=2, extra=("qos=high", "exclusive"))
    said = parameters(["train"], request, "slurm")
    assert said["name"] == "bitdistiller-train"
    assert (said["gpus_per_node"], said["slurm_mem"], said["timeout_min"], said["nodes"]) == (2, "500MB", 7, 2)
    assert said["slurm_additional_parameters"] == {"requeue": True, "qos": "high", "exclusive": True}


@pytest.mark.parametrize(
    ("visible", "gpus", "expected"),
    [(None, None, None), ("4,5", None, "4,5"), ("4,5", 1, "4"), (None, 2, "0,1"), (None, 0, "")],
)
def test_a_local_job_sees_the_gpus_of_its_submitter(monkeypatch, visible, gpus, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    command = make_command(["check"], Request(gpus=gpus), "local", "bitdistiller")
    assert command.environment["CUDA_VISIBLE_DEVICES"] == expected


def test_a_child_that_does_not_end_in_time_is_killed(tmp_path):
    stubborn = "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.kill(os.getppid(), 15); time.sleep(60)"
    begin = time.monotonic()
    child = Child([sys.executable, "-c", stubborn], tmp_path, os.environ, grace=0.5)
    assert child.run() == -signal.SIGKILL
    assert child.signals == {signal.SIGTERM}
    assert time.monotonic() - begin < 20


def test_the_signal_of_the_walltime_does_not_end_the_child_itself(tmp_path):
    program = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2)"
    assert Child([sys.executable, "-c", program], tmp_path, os.environ, grace=1.0).run() == 0


def test_a_growing_file_is_shown_from_its_tail_and_again_after_a_cut(tmp_path):
    path = tmp_path / "log"
    growing = GrowingFile(path, tail=2)
    assert growing.news() == ""
    path.write_text("a\nb\nc\n")
    assert growing.news() == "b\nc\n"
    path.write_text("a\nb\nc\nd\n")
    assert (growing.news(), growing.news()) == ("d\n", "")
    path.write_text("e\n")
    assert growing.news() == "e\n"


@pytest.mark.parametrize(
    ("squeue", "sacct", "state"),
    [
        ("echo RUNNING", "exit 1", "RUNNING"),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "echo 'CANCELLED by 0'", "CANCELLED"),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "echo RUNNING", "GONE"),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "exit 1", "GONE"),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", "echo COMPLETED", "UNKNOWN"),
    ],
)
def test_the_state_of_a_job(tmp_path, monkeypatch, squeue, sacct, state):
    for name, script in (("squeue", squeue), ("sacct", sacct)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert slurm_state("7") == state
