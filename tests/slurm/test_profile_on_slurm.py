"""The profile on a real cluster: what sbatch is asked for, how GPUs are counted, what a job's name tells."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from helpers.workflow_copy import ROOT, copy_of_the_repository
from slurm.rig.cluster import Cluster
from slurm.rig.daemons import wait_until

RESOURCES = {
    "pretrain_demo": {"runtime": 31, "mem_mb": 3100},
    "evaluate": {"runtime": 32, "mem_mb": 3200, "gpu": 1},
}
FIELDS = ("JobName", "Account", "Partition", "TimelimitRaw", "ReqMem", "ReqTRES", "State", "Start", "End", "Comment")
FAILS_TWICE = """
import sys
sys.path.insert(0, {root!r})
from bitdistiller.config import StageResources
from bitdistiller.resources import cluster_settings, job_resources
CLUSTER = cluster_settings(workflow.resource_settings.default_resources or {{}})
rule grows:
    output: "done"
    resources: **job_resources("mix", StageResources(mem_mb=1000, runtime=10), CLUSTER)
    shell: "echo {{resources.mem_mb}} {{resources.runtime}} >> seen; [ $(wc -l < seen) -ge 3 ] && touch {{output}}"
"""


class User:
    """A user of the cluster with a home of their own, in a copy of the repository."""

    def __init__(self, cluster: Cluster, python: Path, home: Path) -> None:
        self.cluster, self.python, self.home = cluster, python, home
        self.begin = datetime.now()

    @property
    def environment(self) -> dict[str, str]:
        """Snakemake and Python of the SLURM environment, first on PATH."""
        there = self.cluster.environment
        path = f"{self.python.parent}:{there['PATH']}"
        return there | {"PATH": path, "XDG_CONFIG_HOME": str(self.home / "config"), "OMP_NUM_THREADS": "1"}

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program in the copy."""
        output = (self.home / "output.txt").open("a")
        return subprocess.Popen(command, cwd=self.home, env=self.environment, stdout=output, stderr=output, text=True)

    def run(self, *command: str, seconds: float = 900) -> str:
        """Run a program to its end, which must be a good one; returns what it and those before it printed."""
        code = self.start(*command).wait(seconds)
        printed = (self.home / "output.txt").read_text()
        assert code == 0, printed[-5000:]
        return printed

    def polls_at_once(self, profile: Path) -> None:
        """Let a profile poll after a second, so that tests do not wait."""
        text = profile.read_text()
        changed = text.replace("before-status-checks: 30", "before-status-checks: 1")
        assert changed != text
        profile.write_text(changed)

    def accounted(self, count: int) -> list[dict[str, str]]:
        """What accounting has of this user's finished jobs, once there are `count`."""
        command = ["sacct", "-X", "-n", "-P", "-S", f"{self.begin:%Y-%m-%dT%H:%M:%S}", "-o", ",".join(FIELDS)]

        def jobs() -> list[dict[str, str]]:
            lines = self.cluster.run(command).stdout.splitlines()
            found = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in lines]
            return [job for job in found if job["JobName"].startswith("bitdistiller_") and job["End"] != "Unknown"]

        wait_until(lambda: len(jobs()) >= count, 60, f"{count} finished jobs in sacct")
        return jobs()


@pytest.fixture
def user(cluster: Cluster, slurm_python: Path, tmp_path: Path) -> User:
    """A user with a fresh copy of the repository."""
    return User(cluster, slurm_python, copy_of_the_repository(tmp_path / "copy", resources=RESOURCES))


def test_the_literal_command_after_installing(user: User) -> None:
    wishes = ["--account", "demo", "--partition", "cpu", "--gpu-gres", "gpu:fake", "--gpu-partition", "gpu"]
    account = user.cluster.run(["sacctmgr", "-n", "-P", "show", "associations", "format=Account,User"]).stdout
    wishes[1] = next(line.split("|")[0] for line in account.splitlines() if line.split("|")[1])
    said = user.run("python", "-m", "bitdistiller", "profile", "install", "slurm", *wishes, "--gpus", "1")
    assert "first status poll after 30 s: MinJobAge of this cluster is 300 s" in said
    assert "not checked" not in said
    user.polls_at_once(user.home / "config" / "snakemake" / "slurm" / "profile.v9+.yaml")

    running = user.start("snakemake", "--profile", "slurm")
    user.cluster.wait_for_jobs(1, 200)
    listed = subprocess.run(
        ["python", "-m", "bitdistiller", "jobs", "--json"],
        cwd=user.home,
        env=user.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    first = json.loads(listed.stdout)[0]
    assert (first["rule"], first["wildcards"], first["state"]) == ("pretrain_demo", "m", "RUNNING")
    assert running.wait(900) == 0, (user.home / "output.txt").read_text()[-5000:]
    assert (user.home / "results" / "tables" / "seconds" / "main.csv").is_file()

    jobs = {int(job["TimelimitRaw"]): job for job in user.accounted(3)}
    assert set(jobs) >= {31, 32}
    teacher, evaluation = jobs[31], jobs[32]
    assert (teacher["Partition"], teacher["Account"], teacher["ReqMem"]) == ("cpu", wishes[1], "3100M")
    assert "gres/gpu" not in teacher["ReqTRES"]
    assert (evaluation["Partition"], evaluation["ReqMem"]) == ("gpu", "3200M")
    assert "gres/gpu=1" in evaluation["ReqTRES"]
    first, second = sorted(
        (job for job in user.accounted(3) if job["Partition"] == "gpu"), key=lambda job: job["Start"]
    )
    assert second["Start"] >= first["End"], "two GPUs in flight with --gpus 1"


def test_the_workflow_profile_without_any_setup(user: User) -> None:
    user.polls_at_once(user.home / "profiles" / "slurm" / "profile.v9+.yaml")
    experiment = yaml.safe_load((user.home / "config.yaml").read_text())
    experiment["resources"]["evaluate"]["gpu"] = 0
    (user.home / "config.yaml").write_text(yaml.safe_dump(experiment))
    user.run("snakemake", "--workflow-profile", "slurm")
    assert (user.home / "results" / "tables" / "seconds" / "main.csv").is_file()
    assert {job["Partition"] for job in user.accounted(3)} == {"cpu"}
    assert {job["State"] for job in user.accounted(3)} == {"COMPLETED"}


def test_a_job_sees_the_resources_that_its_attempt_was_given(user: User) -> None:
    (user.home / "grows").mkdir()
    (user.home / "grows" / "Snakefile").write_text(FAILS_TWICE.format(root=str(ROOT)))
    user.run("python", "-m", "bitdistiller", "profile", "install", "slurm")
    profile = user.home / "config" / "snakemake" / "slurm" / "profile.v9+.yaml"
    user.polls_at_once(profile)
    profile.write_text(profile.read_text() + "  runtime_limit: 25\n")
    user.run("snakemake", "--profile", "slurm", "--directory", "grows", "--snakefile", "grows/Snakefile")
    seen = [tuple(map(int, line.split())) for line in (user.home / "grows" / "seen").read_text().splitlines()]
    assert seen == [(1000, 10), (2000, 20), (3000, 25)]
    asked = sorted((int(job["ReqMem"].removesuffix("M")), int(job["TimelimitRaw"])) for job in user.accounted(3))
    assert asked == seen


def test_snakemake_reads_what_the_installer_wrote(user: User) -> None:
    (user.home / "mine.yaml").write_text("partitions: {cpu: {}, gpu: {max_gpu: 2}}\n")
    wishes = ["--sdm", "apptainer", "--partitions", "mine.yaml", "--gpu-gres", "gpu", "--into", "given"]
    user.run("python", "-m", "bitdistiller", "profile", "install", "slurm", *wishes)
    program = """
from snakemake.cli import parse_args
_, read = parse_args(["--profile", "./given", "--dry-run"])
software = ",".join(map(str, read.software_deployment_method))
print("READ", software, read.apptainer_args, read.slurm_partition_config, read.executor)
"""
    printed = user.run("python", "-c", program)
    assert "READ apptainer --nv given/partitions.yaml slurm" in printed


def test_the_example_of_partitions_chooses_by_limits(cluster: Cluster, slurm_python: Path) -> None:
    program = """
import sys
from types import SimpleNamespace
from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file
partitions = read_partition_file(sys.argv[1])
logger = SimpleNamespace(**{name: lambda *_: None for name in ("info", "warning", "debug")})
for wanted in ({"runtime": 60}, {"runtime": 600}, {"runtime": 60, "gres": "gpu:a100:4"}):
    job = SimpleNamespace(resources=wanted, threads=2, name="job", is_group=lambda: False)
    print(get_best_partition(partitions, job, logger))
"""
    example = str(ROOT / "profiles" / "slurm" / "partitions.example.yaml")
    chosen = cluster.run([str(slurm_python), "-c", program, example]).stdout.split()
    assert chosen == ["short", "long", "gpu"]
