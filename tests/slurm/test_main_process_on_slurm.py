"""The main process itself is what fails, or shares its directory, or meets a cluster on which it would hang."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm.project.command import Command
from slurm.project.inputs import SAVE_EVERY
from slurm.project.project import SHARD, TRAIN, Project
from slurm.project.work import attempts, batches, commits, repeated_batches, repeated_steps
from slurm.rig.cluster import Cluster
from slurm.rig.daemons import wait_until
from slurm.rig.settings import Settings

AFTER_TRAIN = ("tiny/int2/export", "tiny/int2/evaluation", "tables")
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


def kill_during(project: Project, condition: Callable[[], object]) -> list[dict[str, str]]:
    """Start the command, try a second one beside it, kill -9 the first once `condition()`; returns the jobs it left."""
    with project.start() as main:
        main.wait_for(lambda: project.path("results/.main-process/lock.json").exists(), "its lock")
        assert f"process {main.process.pid} of " in refused(project)
        main.wait_for(condition, "enough progress")
        main.kill()
    left = project.cluster.jobs()
    assert left
    assert "run `bitdistiller unlock`, then the same command" in refused(project)
    return left


@pytest.mark.ci
def test_a_main_process_killed_during_training(project: Project, undisturbed: Project) -> None:
    left = kill_during(project, lambda: commits(project.path(TRAIN)) >= 2)
    said = unlock(project)
    assert all(f"job {job['id']} " in said for job in left)
    with project.start() as main:
        main.wait_for(lambda: "has been submitted" in main.output, "the successor's submission")
        assert "a former run left 1 of these jobs in the queue" in main.output
        main.finish()
    assert project.results() == undisturbed.results()
    first, *others = attempts(project.path(TRAIN))
    assert first["outcome"] == "finished"
    assert len(others) == 1
    assert sum(repeated_steps(project.path(TRAIN))) == 0


def test_jobs_that_a_killed_main_process_left_can_be_cancelled(project: Project, undisturbed: Project) -> None:
    left = kill_during(project, lambda: commits(project.path(TRAIN)) >= 2)
    said = unlock(project, "--cancel-jobs")
    assert all(f"job {job['id']} cancelled" in said for job in left)
    project.snakemake()
    assert project.results() == undisturbed.results()
    assert max(repeated_steps(project.path(TRAIN))) <= SAVE_EVERY


def test_a_main_process_killed_during_generation(undisturbed: Project, project_directory: Path) -> None:
    project = undisturbed.copy(project_directory)
    project.forget("tiny/mixes", "tiny/int2/train", *AFTER_TRAIN)
    shards = [project.path(SHARD).with_name(f"0000{number}") for number in range(2)]
    left = kill_during(project, lambda: all(len(batches(shard)) >= 3 for shard in shards))
    assert len(left) >= 2
    unlock(project)
    project.snakemake()
    assert project.results() == undisturbed.results()
    assert [repeated_batches(shard) for shard in shards] == [0, 0]


@pytest.fixture
def cancelling(make_cluster: Callable[..., Cluster]) -> Iterator[Cluster]:
    """A cluster whose partition low cancels the jobs that it preempts."""
    cluster = make_cluster(Settings(accounting=False, preempt_mode="CANCEL"))
    yield cluster
    cluster.stop()


def test_a_partition_that_cancels_preempted_jobs(project: Project, undisturbed: Project, cancelling: Cluster) -> None:
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
        wait_until(lambda: cancelling.jobs() == [], 120, "the preempted job to be gone")
        time.sleep(HANG)
        assert main.runs
        assert "Finished" not in main.output
        assert main.interrupt() != 0
    profile["default-resources"]["slurm_partition"] = "cpu"
    project.set_profile(**profile)
    project.snakemake()
    assert project.results() == undisturbed.results()
    assert max(repeated_steps(project.path(TRAIN))) <= SAVE_EVERY


def test_too_short_a_memory_of_finished_jobs_is_refused(project: Project) -> None:
    project.set_profile(**{"slurm-init-seconds-before-status-checks": 101})
    assert "accepted: at most 100" in refused(project)
