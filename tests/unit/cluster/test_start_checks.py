"""What is refused before the first job goes to SLURM, because a workflow would hang there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bitdistiller.cluster.slurm import ClusterFacts, cluster_facts
from bitdistiller.cluster.start import cancelling, forgetting, partitions_of, prepare
from bitdistiller.errors import InputError

NOW = SimpleNamespace(status_command="squeue", init_seconds_before_status_checks=30, partition_config=None)


def settings(**changes: Any) -> SimpleNamespace:
    """Settings of the executor's plugin, those of our profile but for changes."""
    return SimpleNamespace(**{**vars(NOW), **changes})


def job(name: str, partition: str | None = None, local: bool = False) -> SimpleNamespace:
    """A job of Snakemake's that asks for a partition."""
    return SimpleNamespace(name=name, is_local=local, wildcards=(), resources={"slurm_partition": partition})


@pytest.fixture
def facts(slurm_clients: Callable[..., Path]) -> ClusterFacts:
    """The captured cluster: partition low is below all others."""
    slurm_clients()
    return cluster_facts()


def with_mode(facts: ClusterFacts, name: str, mode: str, **config: str) -> ClusterFacts:
    """The same cluster with another PreemptMode of a partition."""
    changed = replace(facts.partitions[name], preempt_mode=mode)
    return replace(facts, partitions=facts.partitions | {name: changed}, config=facts.config | config)


def names(facts: ClusterFacts, *jobs: Any, **changes: Any) -> list[str]:
    return [found.name for found in partitions_of(jobs, facts, settings(**changes))]


def test_the_partitions_in_use_are_those_of_the_jobs(facts: ClusterFacts, tmp_path: Path) -> None:
    assert names(facts, job("a", "low"), job("b", "gpu,high"), job("c", "low")) == ["low", "gpu", "high"]
    assert names(facts, job("a"), job("tabulate", "low", local=True)) == ["cpu"]
    assert names(facts) == []
    file = tmp_path / "partitions.yaml"
    file.write_text("partitions:\n  gpu: {max_gpu: 1}\n  low: {}\n")
    assert names(facts, job("a"), job("b", "cpu"), partition_config=file) == ["gpu", "low", "cpu"]


def test_a_partition_that_cancels_preempted_jobs_is_named(facts: ClusterFacts) -> None:
    low, high = facts.partitions["low"], facts.partitions["high"]
    assert list(cancelling([low], facts)) == []
    cancels = with_mode(facts, "low", "CANCEL")
    (line,) = cancelling(cancels.partitions.values(), cancels)
    assert line.startswith("slurm_partition: low cancels preempted jobs")
    without = with_mode(facts, "low", "CANCEL", PreemptType="preempt/none")
    assert list(cancelling(without.partitions.values(), without)) == []
    first = with_mode(facts, "high", "CANCEL")
    assert list(cancelling([replace(high, preempt_mode="CANCEL")], first)) == []
    by_qos = with_mode(facts, "high", "CANCEL", PreemptType="preempt/qos")
    assert len(list(cancelling([by_qos.partitions["high"]], by_qos))) == 1


@pytest.mark.parametrize(
    ("changes", "config", "said"),
    [
        ({}, {}, ""),
        ({}, {"MinJobAge": "60 sec"}, "30 s is more than a third .* accepted: at most 20$"),
        ({"init_seconds_before_status_checks": 20}, {"MinJobAge": "60 sec"}, ""),
        ({"status_command": "sacct"}, {}, ""),
        ({"status_command": "sacct"}, {"AccountingStorageType": "accounting_storage/none"}, "accepted: squeue$"),
        ({}, {"AccountingStorageType": "(null)"}, ""),
    ],
)
def test_ways_to_ask_for_a_status_that_lose_jobs(
    facts: ClusterFacts, changes: dict[str, Any], config: dict[str, str], said: str
) -> None:
    lines = list(forgetting(replace(facts, config=facts.config | config), settings(**changes)))
    assert len(lines) == bool(said)
    if said:
        assert re.search(said, lines[0])


def workflow(executor: str, *jobs: Any, **changes: Any) -> Any:
    """As much of Snakemake's workflow as is looked at."""
    dag = SimpleNamespace(needrun_jobs=lambda: iter(jobs))
    plugin = SimpleNamespace(name=executor)
    return SimpleNamespace(executor_plugin=plugin, dag=dag, executor_settings=settings(**changes))


def test_another_executor_asks_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert prepare(workflow("local", job("a"))) == []


def test_a_start_that_would_hang_is_refused_with_one_line_or_warned_of(
    slurm_clients: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = slurm_clients(min_job_age=45)
    (folder / "squeue").write_text(f"#!/bin/sh\necho '9|RUNNING|ada|rule_a|{Path.cwd()}'\n")
    (folder / "squeue").chmod(0o755)
    with pytest.raises(InputError, match="accepted: at most 15; BITDISTILLER_SLURM=warn starts all the same"):
        prepare(workflow("slurm", job("a")))
    monkeypatch.setenv("BITDISTILLER_SLURM", "warn")
    (warning,) = prepare(workflow("slurm", job("b")))
    assert "warning: slurm-init-seconds-before-status-checks" in warning
