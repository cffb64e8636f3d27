"""The doctor on a healthy cluster, and on one with each fault switched on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm.rig.cluster import Cluster
from slurm.rig.settings import Settings

REPOSITORY = Path(__file__).parents[2]
PROFILE = REPOSITORY / "profiles" / "slurm" / "profile.v9+.yaml"
DEFAULTS = {"slurm_partition": "cpu", "gpu_partition": "gpu", "mem_mb": 8000, "runtime": 60}


@dataclass
class Patient:
    """A cluster's user with a profile and an experiment, in a folder of his own."""

    cluster: Cluster
    home: Path
    model: Path
    python: Path
    profile: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=lambda: {"export": {"gpu": 1}})
    mounts: str = ""
    """Shell commands that change what only the doctor sees, and not the compute nodes."""
    interpreter: str = sys.executable

    def examine(self, *arguments: str, **environment: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
        """Exit code, and (level, seen) of each check by its name."""
        keys = {
            **yaml.safe_load(PROFILE.read_text()),
            "default-resources": {**DEFAULTS, **self.defaults},
            **self.profile,
        }
        (self.home / "profile.yaml").write_text(yaml.safe_dump(keys))
        (self.home / "config.yaml").write_text(yaml.safe_dump(self.experiment()))
        command = [self.interpreter, "-m", "bitdistiller", "doctor", "--profile", "profile.yaml", "--json"]
        if self.mounts:
            command = ["unshare", "--mount", "sh", "-ec", f'{self.mounts}\nexec "$@"', "sh", *command]
        if "--python" not in arguments:
            arguments = (*arguments, "--python", str(self.python))
        variables = {**self.cluster.environment, "PYTHONPATH": str(REPOSITORY), **environment}
        done = subprocess.run(
            [*command, *arguments], cwd=self.home, env=variables, capture_output=True, text=True, timeout=300
        )
        said = json.loads(done.stdout) if done.returncode in (0, 1) else pytest.fail(done.stderr)
        assert said["exit_code"] == done.returncode
        found: dict[str, list[tuple[str, str]]] = {}
        for finding in said["findings"]:
            found.setdefault(finding["name"], []).append((finding["level"], finding["seen"]))
        return done.returncode, found

    def experiment(self) -> dict[str, Any]:
        """One model, rounded."""
        run = {"model": "m", "method": "rtn", "format": "int2", "group_size": 32}
        return {"models": {"m": {"path": str(self.model)}}, "runs": {"r": run}, "resources": self.resources}


@pytest.fixture
def patient(tmp_path: Path, tiny_model: Path, slurm_python: Path) -> Callable[..., Patient]:
    """`patient(cluster, **changes)`."""
    return lambda cluster, **changes: Patient(cluster, tmp_path, tiny_model, slurm_python, **changes)


@pytest.fixture(scope="module")
def cluster_with(make_cluster: Callable[..., Cluster]) -> Callable[..., Cluster]:
    """`cluster_with(**settings)`, without accounting, once for each."""
    made: dict[str, Cluster] = {}

    def get(**settings: Any) -> Cluster:
        key = json.dumps(settings, sort_keys=True)
        if key not in made:
            made[key] = make_cluster(Settings(**{"accounting": False, **settings}))
        return made[key]

    return get


@pytest.fixture
def private_mounts() -> None:
    """Skip where a process may not have mounts of its own."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("unshare --mount is not permitted here")


def levels(found: dict[str, list[tuple[str, str]]], name: str) -> set[str]:
    return {level for level, _ in found[name]}


def test_a_healthy_cluster_has_no_errors_but_its_gpus(cluster, patient):
    """All but CUDA, since the GPUs are copies of /dev/null."""
    _, found = patient(cluster).examine()
    wrong = {name: lines for name, lines in found.items() if levels(found, name) - {"ok"}}
    assert set(wrong) == {"cuda", "kill-wait"}, wrong
    assert levels(found, "cuda") == {"error"}
    assert "CUDA_VISIBLE_DEVICES" in found["cuda"][0][1]
    assert levels(found, "kill-wait") == {"warning"}
    assert [seen.split(":")[0] for _, seen in found["nodes"]] == ["cpu", "gpu, GPU"]
    cluster.wait_until_idle()


def test_without_gpus_in_the_experiment_the_exit_code_is_0(cluster, patient):
    code, found = patient(cluster, resources={}).examine()
    assert code == 0
    assert "cuda" not in found
    assert [seen for _, seen in found["gpus"]] == ["no stage asks for any"]


STATIC = [
    ({"min_job_age": 10}, {}, "min-job-age", "error", "MinJobAge 10 s is less than 3 x 30 s"),
    ({"job_requeue": False}, {"profile": {"slurm-requeue": False}}, "requeue", "error", "JobRequeue=0"),
    ({}, {"profile": {"slurm-requeue": False}}, "requeue", "error", "JobRequeue=1"),
    ({"job_requeue": False}, {}, "requeue", "ok", "JobRequeue=0"),
    (
        {"preempt_mode": "CANCEL"},
        {"defaults": {"slurm_partition": "low"}},
        "preemption",
        "error",
        "low: PreemptMode=CANCEL",
    ),
    ({}, {"defaults": {"slurm_partition": "low"}}, "preemption", "ok", "low: PreemptMode=REQUEUE"),
    ({"max_time": "1"}, {}, "walltime", "error", "export asks for 60 minutes, partition gpu allows 1"),
    ({"max_time": "100"}, {}, "walltime", "warning", "export asks for up to 180 minutes at later attempts"),
    (
        {"max_time": "100"},
        {"defaults": {"runtime_limit": 90}, "resources": {}},
        "walltime",
        "error",
        "fetch asks for 240",
    ),
    ({"gpus": 0}, {}, "gpus", "error", "export asks for 1 of gpu, nodes of gpu have 0"),
    ({}, {"defaults": {"gpu_gres": "gpu:a100"}}, "gpus", "error", "1 of gpu:a100"),
    ({}, {"defaults": {"gpu_gres": "gpu:fake"}}, "gpus", "ok", "at most 1 in a job"),
    ({}, {"resources": {"export": {"gpu": 3}}}, "gpus", "error", "export asks for 3 of gpu, nodes of gpu have 2"),
    ({"memory": 1000}, {}, "memory", "error", "export asks for 4000 MB, nodes of gpu have 1000"),
    ({}, {"resources": {"export": {"threads": 9}}}, "cpus", "error", "export asks for 9 cores"),
    ({"kill_wait": 0}, {}, "kill-wait", "warning", "KillWait 0 s"),
    ({"kill_wait": 30}, {}, "kill-wait", "ok", "KillWait 30 s"),
    ({}, {}, "accounting", "warning", "accounting storage is disabled"),
    ({}, {"profile": {"slurm-status-command": "sacct"}}, "status", "error", "accounting storage is disabled"),
    ({}, {"defaults": {"slurm_partition": "nowhere"}}, "partition", "error", "nowhere: no such partition"),
    ({}, {"defaults": {"slurm_partition": "CHANGE_ME"}}, "profile", "error", "slurm_partition not set"),
]


@pytest.mark.parametrize(("settings", "changes", "name", "level", "seen"), STATIC)
def test_a_fault_that_the_controller_tells(cluster_with, patient, settings, changes, name, level, seen):
    code, found = patient(cluster_with(**settings), **changes).examine("--no-jobs")
    assert level in levels(found, name)
    assert seen in " / ".join(text for found_level, text in found[name] if found_level == level)
    assert code == int(any("error" in levels(found, each) for each in found))
    assert levels(found, "nodes") == {"skipped"}


def test_accounting_that_has_stopped(make_cluster, patient):
    cluster = make_cluster(Settings())
    cluster.stop_accounting()
    _, found = patient(cluster, resources={}).examine("--no-jobs")
    assert levels(found, "status") == {"ok"}
    assert levels(found, "accounting") == {"warning"}
    _, found = patient(cluster, resources={}, profile={"slurm-status-command": "sacct"}).examine("--no-jobs")
    assert levels(found, "status") == {"error"}
    cluster.stop()


def test_srun_without_slurm_conf(cluster_with, patient):
    _, found = patient(cluster_with(client_wrappers=False), resources={}).examine()
    assert levels(found, "srun") == {"error"}
    assert levels(found, "nodes") == {"ok"}


def test_a_python_that_compute_nodes_do_not_have(cluster_with, patient, slurm_python, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ -z "$SLURM_JOB_ID" ] || exit 127\nexec {slurm_python} "$@"\n')
    python.chmod(0o755)
    _, found = patient(cluster_with(), resources={}).examine("--python", str(python))
    assert levels(found, "plugin") == {"ok"}
    assert levels(found, "environment") == {"error"}


@pytest.mark.usefixtures("private_mounts")
def test_a_folder_that_compute_nodes_do_not_share(cluster_with, patient):
    (someone := patient(cluster_with(), resources={})).mounts = "mkdir -p work && mount -t tmpfs none work"
    code, found = someone.examine()
    assert code == 1
    assert levels(found, "nodes") == {"error"}
    assert "without a log here" in found["nodes"][0][1]


@pytest.mark.usefixtures("private_mounts")
def test_an_environment_that_compute_nodes_do_not_see(cluster_with, patient, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    someone = patient(cluster_with(), resources={}, interpreter=str(hidden / "bin" / "python"))
    someone.mounts = f"mount --bind {sys.prefix} {hidden}"
    code, found = someone.examine()
    assert code == 1
    assert levels(found, "nodes") == {"error"}
    assert f"{hidden}/bin/python is not there" in found["nodes"][0][1]


def test_a_python_without_the_plugin(cluster_with, patient):
    _, found = patient(cluster_with(), resources={}).examine("--no-jobs", "--python", sys.executable)
    assert levels(found, "plugin") == {"error"}
    _, found = patient(cluster_with(), resources={}).examine("--no-jobs", "--python", "/nowhere/python")
    assert found["plugin"] == [("error", "/nowhere/python: no such file")]


def test_a_model_that_cannot_be_read(cluster_with, patient, tmp_path):
    someone = patient(cluster_with(), resources={})
    someone.model = tmp_path / "no-model"
    code, found = someone.examine()
    assert code == 1
    assert levels(found, "files") == {"error"}
    assert len(found["files"]) == 2
    assert all("no-model/config.json" in seen for _, seen in found["files"])


def test_a_partition_whose_nodes_are_busy(cluster_with, patient):
    cluster = cluster_with(nodes=1)
    blocker = ["sbatch", "--parsable", "-w", "c1", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 300"]
    job = cluster.run(blocker).stdout.strip()
    cluster.wait_for_jobs(1)
    code, found = patient(cluster, resources={}).examine("--patience", "0.05")
    cluster.run(["scancel", job])
    assert code == 0
    assert levels(found, "nodes") == {"warning"}
    assert "has not started" in found["nodes"][0][1]


def test_a_probe_that_sbatch_refuses(cluster_with, patient):
    _, found = patient(cluster_with(), resources={}).examine("--partition", "nowhere")
    assert levels(found, "partition") == {"error"}
    assert levels(found, "nodes") == {"error"}
    assert "invalid partition" in found["nodes"][0][1]


def test_limits_of_the_shell(cluster_with, patient, monkeypatch):
    someone = patient(cluster_with(), resources={})
    _, found = someone.examine("--no-jobs")
    assert levels(found, "limits") == {"ok"}
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        _, found = someone.examine("--no-jobs")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert levels(found, "limits") == {"warning"}
    assert "ulimit -n is 300" in found["limits"][0][1]


def test_without_a_controller_it_checks_what_it_can(cluster_with, patient):
    someone = patient(cluster_with(client_wrappers=False), resources={})
    code, found = someone.examine(SLURM_CONF=os.devnull)
    assert levels(found, "scheduler") == {"skipped"}
    assert levels(found, "nodes") == {"skipped"}
    assert "walltime" not in found
    assert code == 0
