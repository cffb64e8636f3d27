"""Faults with a real scheduler: the same command finishes the DAG by itself, with the same bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from slurm.project import faults
from slurm.project.inputs import BATCHES
from slurm.project.project import SHARD, TRAIN, Project
from slurm.project.scenario import Row, Scenario
from slurm.project.work import batches, repeated_batches
from slurm.rig.daemons import wait_until

MINUTE = 60.0
FULL = "not a byte left until the attempt had ended"
PREEMPTIBLE = {"set-resources": {"generate": {"slurm_partition": "low"}}}
COMPLETIONS = Path("results/tiny/mixes/mix/shards/00001/completions.jsonl")
UNFINISHED = ("tiny/mixes/mix/shards/00000", "tiny/mixes/mix/mix", "tiny/mixes/mix/tokens-64", "tiny/int2", "tables")
"""What a project is without that depends on its first shard."""


def assert_same(project: Project, undisturbed: Project) -> None:
    """All results have the bytes of the undisturbed run, and no finished batch of the first shard was done twice."""
    ours, theirs = project.results(), undisturbed.results()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert len(batches(project.path(SHARD))) == BATCHES
    assert repeated_batches(project.path(SHARD)) == 0


def cut_short(path: Path) -> None:
    """Truncate a file by hand."""
    path.write_bytes(path.read_bytes()[:-100])


def change_a_byte(path: Path) -> None:
    """What the size does not tell."""
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])


@contextmanager
def no_accounting(project: Project) -> Iterator[None]:
    """slurmdbd is down for a minute or longer."""
    project.cluster.stop_accounting()
    begin = time.monotonic()
    try:
        yield
        wait_until(lambda: time.monotonic() - begin > MINUTE, 2 * MINUTE, "the end of the minute")
    finally:
        project.cluster.start_accounting()


@pytest.mark.ci
def test_one_fault_of_every_class_in_one_run(
    undisturbed: Project, project_directory: Path, small_disk: str | None, rows: list[Row]
) -> None:
    project = undisturbed.copy(project_directory)
    project.forget(*UNFINISHED)
    cut_short(project.path(COMPLETIONS))
    project.set_profile(**PREEMPTIBLE)
    begin = time.time()
    with Scenario(project, rows) as scenario:
        with no_accounting(project):
            scenario.strike("job killed", "scancel", faults.cancel, SHARD)
            scenario.strike("preemption", "a job of a higher partition; requeued", faults.preempt, SHARD)
            outage = "slurmctld stopped and started"
            scenario.strike("controller restarted", outage, faults.restart_controller, SHARD, ends=False)
            scenario.strike("walltime", "time limit reached", faults.reach_walltime, SHARD)
        scenario.strike("out of memory", "SIGKILL of the stage's process", faults.kill, TRAIN)
        scenario.strike("node lost", "slurmd and its processes killed; requeued", faults.lose_node, TRAIN)
        if small_disk is None:
            scenario.strike("disk full", FULL, faults.fill_disk, TRAIN, ends_command=True)
        scenario.finish()
    rows.append(Row("no accounting", "generate", "slurmdbd down for a minute", "nothing", None))
    seconds = round(project.path(COMPLETIONS).stat().st_mtime - begin, 1)
    rows.append(Row("file damaged", "generate", "a shard cut short by hand, noticed at the start", "nothing", seconds))
    assert_same(project, undisturbed)


def test_walltime_and_memory_again_and_again(undisturbed: Project, project_directory: Path, rows: list[Row]) -> None:
    project = undisturbed.copy(project_directory)
    project.forget(*UNFINISHED)
    with Scenario(project, rows) as scenario:
        for work in (SHARD, TRAIN):
            scenario.strike("out of memory", "address space limited", faults.limit_memory, work, after=0)
            for _ in range(2):
                scenario.strike("walltime", "time limit reached", faults.reach_walltime, work)
        scenario.finish()
    assert_same(project, undisturbed)


def test_a_full_disk(undisturbed: Project, project_directory: Path, small_disk: str | None, rows: list[Row]) -> None:
    if small_disk is not None:
        pytest.skip(f"no file system of its own for this test ({small_disk})")
    project = undisturbed.copy(project_directory)
    project.forget(*UNFINISHED)
    with Scenario(project, rows) as scenario:
        for work in (SHARD, TRAIN):
            scenario.strike("disk full", FULL, faults.fill_disk, work, ends_command=True)
        scenario.finish()
    assert_same(project, undisturbed)


def test_a_shard_that_changed_without_changing_its_size(undisturbed: Project, project_directory: Path) -> None:
    project = undisturbed.copy(project_directory)
    project.forget(*UNFINISHED[1:])
    project.set_profile(retries=0)
    change_a_byte(project.path(COMPLETIONS))
    with project.start() as command:
        assert command.wait() == 1, command.output[-3000:]
    project.snakemake()
    assert_same(project, undisturbed)
