"""Submitted jobs under a real scheduler: interrupted, preempted, cancelled, left alone by their submitter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm.rig.cluster import Cluster
from slurm.rig.daemons import wait_until
from slurm.rig.settings import Settings

from bitdistiller.cluster.attach import SubmittedJob
from bitdistiller.cluster.request import Request
from bitdistiller.cluster.submit import submit
from bitdistiller.errors import InputError, TryAgain

TESTS = Path(__file__).parents[1]
TOY = "helpers.toy_stage"


@pytest.fixture(autouse=True)
def _user(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a user of the cluster, at home in a folder of its own."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., SubmittedJob]:
    """`toy(*arguments, **request)`: the toy stage as a job of the cluster."""

    def run(*arguments: object, **request: object) -> SubmittedJob:
        asked = Request(**{"minutes": 10, "mem_mb": 200, **request})
        job = submit([*map(str, arguments)], asked, tmp_path / "jobs", "slurm", module=TOY)
        return SubmittedJob(job.job_id, tmp_path / "jobs")

    return run


def steps(output: Path) -> int:
    return len(list(output.with_name(f"{output.name}.work").glob("*/step-*")))


def attempts(output: Path) -> list[str]:
    """How the stage's attempts ended; those that left no word are not among them."""
    lines = output.with_name(f"{output.name}.work").joinpath("attempts.jsonl").read_text().splitlines()
    return [record["outcome"] for record in map(json.loads, lines) if "outcome" in record]


def restarts(cluster: Cluster, job: SubmittedJob) -> int:
    record = cluster.run(["scontrol", "show", "job", "-o", job.job_id]).stdout
    return int(record.split("Restarts=")[1].split()[0])


def finish(job: SubmittedJob) -> int:
    return job.wait(lambda _: None)


def test_the_exit_code_and_the_log_are_the_commands(toy, tmp_path):
    job = toy(tmp_path / "out put", "--steps", 2)
    shown: list[str] = []
    assert job.wait(shown.append) == 0
    assert (tmp_path / "out put" / "total.txt").read_text() == "2"
    assert "count" in "".join(shown)
    assert finish(toy("--no-such-option")) == 2


def test_asked_to_save_before_the_walltime_it_comes_back_under_its_id(cluster, toy, tmp_path):
    output = tmp_path / "out"
    job = toy(output, "--steps", 20, "--sleep", 0.3)
    wait_until(lambda: steps(output) >= 2, 60, "two steps")
    cluster.run(["scancel", "--signal=USR2", job.job_id])
    assert finish(job) == 0
    assert (output / "total.txt").read_text() == "20"
    assert restarts(cluster, job) == 1
    assert "deadline" in attempts(output)


def test_a_stage_at_its_own_time_budget_is_queued_again(cluster, toy, tmp_path):
    output = tmp_path / "out"
    job = toy(output, "--steps", 8, "--sleep", 0.5, "--time-budget", 0.05)
    assert finish(job) == 0
    assert (output / "total.txt").read_text() == "8"
    assert restarts(cluster, job) >= 1


def preempt(cluster: Cluster, toy: Callable[..., SubmittedJob], output: Path) -> SubmittedJob:
    """A job that loses its place to another after two steps, and is finished later."""
    job = toy(output, "--steps", 40, "--sleep", 0.3, partition="low", extra=("nodelist=c1",))
    wait_until(lambda: steps(output) >= 2, 60, "two steps")
    cluster.run(["sbatch", "-p", "high", "-w", "c1", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3"])
    assert finish(job) == 0
    assert (output / "total.txt").read_text() == "40"
    assert restarts(cluster, job) >= 1
    return job


def test_a_job_preempted_without_a_grace_time_goes_on_too(cluster, toy, tmp_path):
    preempt(cluster, toy, tmp_path / "out")
    assert attempts(tmp_path / "out")[-1] == "finished"


def test_a_preempted_job_with_a_grace_time_saves_first(make_cluster, toy, tmp_path, monkeypatch):
    cluster = make_cluster(Settings(accounting=False, grace=20))
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    preempt(cluster, toy, tmp_path / "out")
    assert attempts(tmp_path / "out") == ["deadline", "finished"]
    cluster.stop()


def test_a_preempted_job_that_only_gets_sigterm_saves_too(make_cluster, toy, tmp_path, monkeypatch):
    """As on clusters without preempt_send_user_signal."""
    cluster = make_cluster(Settings(accounting=False, grace=20))
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    conf = cluster.places.slurm_conf
    conf.write_text(conf.read_text().replace("SlurmctldParameters=preempt_send_user_signal\n", ""))
    cluster.run(["scontrol", "reconfigure"])
    preempt(cluster, toy, tmp_path / "out")
    assert attempts(tmp_path / "out") == ["deadline", "finished"]
    cluster.stop()


def test_a_job_of_a_lost_node_goes_on_elsewhere(make_cluster, toy, tmp_path, monkeypatch):
    cluster = make_cluster(Settings(accounting=False))
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    job = toy(tmp_path / "out", "--steps", 20, "--sleep", 0.3)
    wait_until(lambda: steps(tmp_path / "out") >= 2, 60, "two steps")
    cluster.crash(cluster.jobs()[0]["node"])
    assert finish(job) == 0
    assert (tmp_path / "out" / "total.txt").read_text() == "20"
    assert attempts(tmp_path / "out") == ["finished"]
    cluster.stop()


def test_a_cancelled_job_saves_and_does_not_come_back(cluster, toy, tmp_path):
    output = tmp_path / "out"
    job = toy(output, "--steps", 1000, "--sleep", 0.2)
    wait_until(lambda: steps(output) >= 2, 60, "two steps")
    cluster.run(["scancel", job.job_id])
    with pytest.raises(TryAgain, match=r"ended without a result \(CANCELLED\); the same command goes on from here"):
        finish(job)
    assert cluster.jobs() == []


def test_attach_finds_the_job_after_the_head_was_killed(cluster, tmp_path):
    command = [sys.executable, "-m", "bitdistiller", "submit", "--mem-mb", "300", "--folder", "jobs"]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    head = subprocess.Popen([*command, "--wait", "--", "options", "train"], env=environment)
    wait_until(lambda: list(Path("jobs").glob("[0-9]*/*_submitted.pkl")), 60, "a submitted job")
    head.kill()
    head.wait()
    job_id = next(Path("jobs").glob("[0-9]*")).name
    attached = subprocess.run([*command, "--attach", job_id], env=environment, capture_output=True, text=True)
    assert attached.returncode == 0
    assert "training.engine" in attached.stdout
    assert f"job {job_id} (slurm): bitdistiller options train" in attached.stderr


def test_every_task_of_several_nodes_runs_the_command(cluster, tmp_path):
    asked = Request(nodes=2, mem_mb=200, minutes=5)
    job = submit([str(tmp_path)], asked, tmp_path / "jobs", "slurm", module="helpers.write_rank")
    assert finish(SubmittedJob(job.job_id, tmp_path / "jobs")) == 0
    ranks = {int(path.name): path.read_text().split() for path in tmp_path.glob("[01]")}
    assert {rank: tasks for rank, (tasks, _) in ranks.items()} == {0: "2", 1: "2"}
    assert {node for _, node in ranks.values()} == {"c1", "c2"}


def test_what_sbatch_refuses_is_one_line(toy, tmp_path):
    with pytest.raises(InputError, match=r"^sbatch refused the job: [^\n]*invalid partition specified: nowhere"):
        toy(tmp_path / "out", partition="nowhere")


@pytest.mark.slow
def test_the_walltime_is_met(make_cluster, tmp_path, monkeypatch):
    """SLURM warns 45 seconds or more before the end of a minute, and the job comes back."""
    cluster = make_cluster(Settings(accounting=False))
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    output = tmp_path / "out"
    asked = Request(minutes=1, warning_seconds=45, mem_mb=200)
    job = submit([str(output), "--steps", "45", "--sleep", "1"], asked, tmp_path / "jobs", "slurm", module=TOY)
    begin = time.monotonic()
    assert finish(SubmittedJob(job.job_id, tmp_path / "jobs")) == 0
    assert (output / "total.txt").read_text() == "45"
    assert restarts(cluster, SubmittedJob(job.job_id, tmp_path / "jobs")) >= 1
    assert attempts(output)[0] == "deadline"
    assert time.monotonic() - begin < 240
