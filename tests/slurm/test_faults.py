"""Faults with a real scheduler: the same command finishes the DAG by itself, with the same bytes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from slurm.project import faults
from slurm.project.inputs import BATCHES
from slurm.project.project import SHARD, Project
from slurm.project.scenario import Row, Scenario
from slurm.project.work import batches, repeated_batches
from slurm.rig.daemons import wait_until

MINUTE = 60.0
LOW = {"set-resources": {stage: {"slurm_partition": "low"} for stage in ("generate", "train")}}


def assert_same(project: Project, undisturbed: Project) -> None:
    """All results have the bytes of the undisturbed run."""
    ours, theirs = project.results(), undisturbed.results()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def assert_batches_done_once(project: Project) -> None:
    """No finished batch of the shard that was disturbed was done again."""
    work = project.path(SHARD)
    assert len(batches(work)) == BATCHES
    assert repeated_batches(work) == 0


def damage(project: Project) -> None:
    """Cut the second shard short, by hand."""
    path = project.path("results/tiny/mixes/mix/shards/00001/completions.jsonl")
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.ci
def test_killed_preempted_and_without_accounting(
    undisturbed: Project, project_directory: Path, rows: list[Row]
) -> None:
    project = undisturbed.copy(project_directory)
    project.forget("tiny/mixes/mix/shards/00000", "tiny/mixes/mix/mix", "tiny/mixes/mix/tokens-64")
    project.forget("tiny/int2", "tables")
    damage(project)
    project.set_profile(**LOW)
    cluster = project.cluster
    with project.start() as command:
        scenario = Scenario(project, command, rows)
        cluster.stop_accounting()
        since = time.monotonic()
        try:
            scenario.strike("job killed", "scancel", faults.cancel, SHARD)
            scenario.strike("preemption", "requeued under its id", faults.preempt, SHARD)
            outage = "slurmctld stopped and started"
            scenario.strike("controller restarted", outage, faults.restart_controller, SHARD, ends=False)
            wait_until(lambda: time.monotonic() - since > MINUTE, 2 * MINUTE, "a minute without accounting")
        finally:
            cluster.start_accounting()
        command.finish()
    rows.append(Row("no accounting", "all", "slurmdbd down for a minute", "nothing", 0.0))
    rows.append(Row("file damaged", "generate", "a shard cut short by hand", "nothing", 0.0))
    assert_batches_done_once(project)
    assert_same(project, undisturbed)
