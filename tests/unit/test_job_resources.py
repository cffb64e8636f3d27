"""What jobs ask the scheduler for, by stage, attempt and cluster."""

from __future__ import annotations

import pytest

from bitdistiller.config import Resources, StageResources
from bitdistiller.resources import (
    GROWS,
    ClusterSettings,
    cluster_settings,
    gpu_resources,
    grown,
    job_resources,
    spread_over_nodes,
)

WANTED = StageResources(gpu=2, mem_mb=8000, runtime=60)


def test_stages_that_go_on_where_they_were_ask_for_the_same_every_time() -> None:
    for stage in set(Resources.model_fields) - set(GROWS):
        asked = job_resources(stage, WANTED, ClusterSettings())
        assert asked == {"mem_mb": 8000, "runtime": 60, "gpu": 2, "nodes": 1, "gpu_slots": 2}


def test_names_of_growing_stages_exist() -> None:
    assert set(GROWS) <= set(Resources.model_fields)


@pytest.mark.parametrize(("attempt", "factor"), [(1, 1), (2, 2), (3, 3), (4, 3), (21, 3)])
def test_growth_with_the_attempt(attempt: int, factor: int) -> None:
    asked = job_resources("tokenize", StageResources(mem_mb=8000, runtime=60), ClusterSettings())
    assert asked["mem_mb"](None, attempt=attempt) == 8000 * factor
    assert asked["runtime"](None, attempt=attempt) == 60 * factor


def test_an_evaluation_grows_in_time_only() -> None:
    asked = job_resources("evaluate", WANTED, ClusterSettings())
    assert asked["mem_mb"] == 8000
    assert asked["runtime"](None, attempt=2) == 120


def test_growth_ends_at_the_limit_but_never_cuts_what_was_configured() -> None:
    assert [grown(100, 250)(None, attempt=n) for n in (1, 2, 3)] == [100, 200, 250]
    assert [grown(100, 50)(None, attempt=n) for n in (1, 2)] == [100, 100]


def test_a_job_without_gpus_names_none_and_keeps_the_partition_of_all_jobs() -> None:
    assert gpu_resources(0, ClusterSettings(gpu_gres="gpu:a100", gpu_partition="gpu")) == {}


def test_gpus_by_gres_and_in_a_partition_of_their_own() -> None:
    asked = gpu_resources(4, ClusterSettings(gpu_gres="gpu:a100", gpu_partition="gpu"))
    assert asked == {"gres": "gpu:a100:4", "nodes": 1, "gpu_slots": 4, "slurm_partition": "gpu"}


def test_settings_come_from_a_profile_s_default_resources() -> None:
    given = {"mem_mb": 8000, "gpu_gres": "'gpu:a100'", "gpu_partition": '"long"', "runtime_limit": "2880"}
    assert cluster_settings(given) == ClusterSettings("gpu:a100", "long", 2880, None)
    assert cluster_settings({}) == ClusterSettings()


def spread(nodes: int, gpus: int, cluster: ClusterSettings) -> dict:
    """What a training on this many nodes asks for, beside memory and time."""
    one = job_resources("train", StageResources(gpu=gpus), cluster)
    asked = spread_over_nodes(one, gpus, cluster, lambda wildcards: wildcards)
    values = {name: value(nodes) if callable(value) else value for name, value in asked.items()}
    return {name: value for name, value in values.items() if value is not None and name not in ("mem_mb", "runtime")}


@pytest.mark.parametrize("cluster", [ClusterSettings(), ClusterSettings(gpu_gres="gpu:a100", gpu_partition="long")])
def test_a_training_on_one_node_asks_as_any_job(cluster: ClusterSettings) -> None:
    assert spread(1, 4, cluster) == gpu_resources(4, cluster)
    assert spread(1, 0, cluster) == {"nodes": 1}


def test_a_training_on_two_nodes_has_a_task_and_all_gpus_on_each() -> None:
    tasks = {"nodes": 2, "tasks": 2, "tasks_per_gpu": 0, "mpi": "srun"}
    assert spread(2, 0, ClusterSettings()) == tasks
    assert spread(2, 4, ClusterSettings()) == tasks | {"gres": "gpu:4", "gpu_slots": 8}
    typed = spread(2, 4, ClusterSettings(gpu_gres="gpu:a100", gpu_partition="long"))
    assert typed == tasks | {"gres": "gpu:a100:4", "gpu_slots": 8, "slurm_partition": "long"}
