"""The main process itself is what fails, or shares its directory, or meets a cluster on which it would hang."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm.project.command import Command
from slurm.project.project import SHARD, TRAIN, Project
from slurm.project.scenario import Row, lost, progressing
from slurm.project.work import attempts, commits, repeated_batches, repeated_steps
from slurm.rig.cluster import Cluster
from slurm.rig.daemons import wait_until
from slurm.rig.settings import Settings

AFTER_TRAIN = ("tiny/int2/export", "tiny/int2/evaluation", "tables")
KILLED = "kill -9; `bitdistiller unlock`, same command again"
HANG = 25
"""Seconds of polls, one a second, after which a workflow counts as hanging."""


@pytest.fixture
def project(undisturbed: Project, project_directory: Path) -> Project:
    """Everything before the training is finished."""
    project = undisturbed.copy(project_directory)
    project.forget("tiny/int2/train", *AFTER_TRAIN)
    return project


def unlock(project: Project, *options: str) -> str:
    """`bitdistiller unlock` in the working directory; returns what it says."""
    log = project.directory / "main" / f"unlock-{time.monotonic_ns()}.log"
    command = [str(project.python), "-m", "bitdistiller", "unlock", *options]
    with Command(command, project.directory, project.environment, log) as running:
        running.finish(60)
        return running.output


def refused(project: Project, **environment: str) -> str:
    """The one line of a start that is refused with exit code 2 and nothing submitted."""
    with project.start(**environment) as command:
        assert command.wait(120) == 2, command.output[-3000:]
    assert "Traceback" not in command.output
    assert "has been submitted" not in command.output
    (line,) = re.findall(r"^error: .*$", command.output, re.MULTILINE)
    return line


def kill_during(project: Project, *works: Path) -> list[dict[str, str]]:
    """
    Start the command, try a second one beside it, and kill -9 the first while stages work in `works`.

    Their processes are stopped by then, so that they still run at the next start; returns their jobs.
    """
    with project.start() as main:
        main.wait_for(lambda: project.path("results/.main-process/lock.json").exists(), "its lock")
        assert f"process {main.process.pid} of " in refused(project)
        main.wait_for(lambda: all(progressing(project.path(work), 2) for work in works), "progress")
        signal_stages(project, signal.SIGSTOP, *works)
        main.kill()
    left = project.cluster.jobs()
    assert len(left) == len(works)
    assert "run `bitdistiller unlock`, then the same command" in refused(project)
    return left


def signal_stages(project: Project, number: int, *works: Path) -> None:
    """Send a signal to the processes of the newest attempts."""
    for work in works:
        os.kill(attempts(project.path(work))[-1]["pid"], number)


def go_on(project: Project, *works: Path) -> Command:
    """The same command, whose jobs are submitted while the former ones are still there; these go on then."""
    main = project.start()
    main.wait_for(lambda: main.output.count("has been submitted") >= len(works), "the successors' submission")
    assert f"a former run left {len(works)} of these jobs in the queue" in main.output
    assert sum(job["state"] == "PENDING" for job in project.cluster.jobs()) == len(works)
    signal_stages(project, signal.SIGCONT, *works)
    return main


def assert_nothing_twice(project: Project, *works: Path) -> None:
    """The former job finished its stage, and its successor found it so."""
    for work in works:
        first, second = attempts(project.path(work))
        assert first["outcome"] == second["outcome"] == "finished"
        assert second["commits_before"] == second["commits_after"]


@pytest.mark.ci
def test_a_main_process_killed_during_training(project: Project, undisturbed: Project, rows: list[Row]) -> None:
    left = kill_during(project, TRAIN)
    begin, durable = time.monotonic(), commits(project.path(TRAIN))
    said = unlock(project)
    assert all(f"job {job['id']} " in said for job in left)
    with go_on(project, TRAIN) as main:
        main.wait_for(lambda: commits(project.path(TRAIN)) > durable, "more progress")
        rows.append(Row("main process killed", "train", KILLED, "nothing", round(time.monotonic() - begin, 1)))
        main.finish()
    assert project.results() == undisturbed.results()
    assert_nothing_twice(project, TRAIN)
    assert sum(repeated_steps(project.path(TRAIN))) == 0


def test_jobs_that_a_killed_main_process_left_can_be_cancelled(
    project: Project, undisturbed: Project, rows: list[Row]
) -> None:
    left = kill_during(project, TRAIN)
    begin, durable = time.monotonic(), commits(project.path(TRAIN))
    said = unlock(project, "--cancel-jobs")
    assert all(f"job {job['id']} cancelled" in said for job in left)
    with project.start() as main:
        main.wait_for(lambda: commits(project.path(TRAIN)) > durable, "more progress")
        seconds = round(time.monotonic() - begin, 1)
        main.finish()
    happened = "kill -9; `bitdistiller unlock --cancel-jobs`, same command again"
    rows.append(Row("main process killed", "train", happened, lost(project.path(TRAIN)), seconds))
    assert project.results() == undisturbed.results()


def test_a_main_process_killed_during_generation(
    undisturbed: Project, project_directory: Path, rows: list[Row]
) -> None:
    project = undisturbed.copy(project_directory)
    project.forget("tiny/mixes", "tiny/int2/train", *AFTER_TRAIN)
    shards = [SHARD.with_name(f"0000{number}") for number in range(2)]
    kill_during(project, *shards)
    begin, durable = time.monotonic(), commits(project.path(SHARD))
    unlock(project)
    with go_on(project, *shards) as main:
        main.wait_for(lambda: commits(project.path(SHARD)) > durable, "more progress")
        rows.append(Row("main process killed", "generate", KILLED, "nothing", round(time.monotonic() - begin, 1)))
        main.finish()
    assert project.results() == undisturbed.results()
    assert_nothing_twice(project, *shards)
    assert [repeated_batches(project.path(shard)) for shard in shards] == [0, 0]


@pytest.fixture
def cancelling(make_cluster: Callable[..., Cluster]) -> Iterator[Cluster]:
    """A cluster whose partition low cancels the jobs that it preempts."""
    cluster = make_cluster(Settings(accounting=False, preempt_mode="CANCEL"))
    yield cluster
    cluster.stop()


def test_a_partition_that_cancels_preempted_jobs(
    project: Project, undisturbed: Project, cancelling: Cluster, rows: list[Row]
) -> None:
    project.cluster = cancelling
    profile = {"default-resources": {"slurm_partition": "low", "nodes": 1, "mem_mb": 1000, "runtime": 60}}
    project.set_profile(**profile)
    assert "slurm_partition: low cancels preempted jobs" in refused(project)

    with project.start(BITDISTILLER_SLURM="warn") as main:
        main.wait_for(lambda: commits(project.path(TRAIN)) >= 2, "progress")
        assert "warning: slurm_partition: low" in main.output
        nodes = ",".join(cancelling.settings.node_names)
        cancelling.run(
            ["sbatch", "-p", "high", "-w", nodes, "-N", "3", "--exclusive", "-o", "/dev/null", "--wrap", "true"]
        )
        begin = time.monotonic()
        wait_until(lambda: cancelling.jobs() == [], 120, "the preempted job to be gone")
        time.sleep(HANG)
        assert main.runs
        assert "Finished" not in main.output
        assert main.interrupt() != 0
    profile["default-resources"]["slurm_partition"] = "cpu"
    project.set_profile(**profile)
    durable = commits(project.path(TRAIN))
    with project.start() as main:
        main.wait_for(lambda: commits(project.path(TRAIN)) > durable, "more progress")
        seconds = round(time.monotonic() - begin, 1)
        main.finish()
    happened = f"refused at the start; forced, it hung for {HANG} s, Ctrl-C, same command on another partition"
    rows.append(Row("preemption by cancelling", "train", happened, lost(project.path(TRAIN)), seconds))
    assert project.results() == undisturbed.results()


def test_too_short_a_memory_of_finished_jobs_is_refused(project: Project) -> None:
    project.set_profile(**{"slurm-init-seconds-before-status-checks": 101})
    assert "accepted: at most 100" in refused(project)
