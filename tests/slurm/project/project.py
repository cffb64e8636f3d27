"""A working directory as a clone of the repository has it, with a small experiment and a profile for the rig."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any, Self

import yaml
from slurm.project.command import SECONDS, Command
from slurm.project.inputs import write_experiment
from slurm.rig.cluster import Cluster
from slurm.rig.configuration import ACCOUNT

REPOSITORY = Path(__file__).parents[3]
LAUNCHER = Path(__file__).with_name("quick_snakemake.py")
COPIED = ("workflow", "rules", "envs", "profiles")
SHARD = Path("work/tiny/mixes/mix/shards/00000")
TRAIN = Path("work/tiny/int2/train")
EXEMPT = (
    "provenance.json",
    "cost.",
    "report.html",
    "training_curves",
    ".snakemake_timestamp",
    "tables/faults/digest.json",
    ".tmp-",
    ".main-process",
)
"""Parts of the names of result files that tell of times and attempts, and of files that are not whole yet."""


class Project:
    """`directory` is on a file system that all nodes share; `python` has Snakemake and its plugin for SLURM."""

    def __init__(self, directory: Path, cluster: Cluster, python: Path) -> None:
        self.directory, self.cluster, self.python = directory, cluster, python
        self._calls = itertools.count(1)

    @classmethod
    def create(cls, directory: Path, cluster: Cluster, python: Path, inputs: Path) -> Self:
        """A fresh clone with nothing done."""
        project = cls(directory, cluster, python)
        project._clone()
        (directory / "bitdistiller").symlink_to(REPOSITORY / "bitdistiller")
        write_experiment(directory / "config.yaml", inputs)
        project.set_profile()
        return project

    def copy(self, directory: Path, cluster: Cluster | None = None) -> Project:
        """The same state of affairs in another directory, times of files included."""
        left_out = shutil.ignore_patterns("locks", "tmp.*", *COPIED)
        shutil.copytree(self.directory, directory, symlinks=True, ignore=left_out, dirs_exist_ok=True)
        project = Project(directory, cluster or self.cluster, self.python)
        project._clone()
        return project

    def _clone(self) -> None:
        for name in COPIED:
            shutil.copytree(REPOSITORY / name, self.directory / name)

    def set_profile(self, **changes: Any) -> None:
        """Install the repository's profile for the rig, with quick polls and the given keys changed."""
        profile = yaml.safe_load((REPOSITORY / "profiles" / "slurm" / "profile.v9+.yaml").read_text())
        profile["default-resources"] |= {"slurm_account": ACCOUNT, "slurm_partition": "cpu", "mem_mb": 1000}
        profile |= {"slurm-init-seconds-before-status-checks": 1, "max-status-checks-per-second": 1, "latency-wait": 10}
        profile |= {"slurm-keep-successful-logs": True, **changes}
        path = self.directory / ".config" / "snakemake" / "slurm" / "profile.v9+.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(profile))

    @property
    def environment(self) -> dict[str, str]:
        """Of a user who works in this directory."""
        found = self.cluster.environment
        own = {"XDG_CONFIG_HOME": str(self.directory / ".config"), "XDG_CACHE_HOME": str(self.directory / ".cache")}
        own |= {"PATH": f"{self.python.parent}:{found['PATH']}", "OMP_WAIT_POLICY": "PASSIVE"}
        own |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        return {key: value for key, value in found.items() if key != "PYTHONPATH"} | own

    def start(self, *arguments: str, **environment: str) -> Command:
        """`snakemake --profile slurm`, running beside the test."""
        log = self.directory / "main" / f"{next(self._calls)}-{os.getpid()}.log"
        command = [str(self.python), str(LAUNCHER), "--profile", "slurm", *arguments]
        return Command(command, self.directory, self.environment | environment, log)

    def snakemake(self, *arguments: str, seconds: float = SECONDS) -> None:
        """The same to its end; raises AssertionError with the output unless it succeeds."""
        with self.start(*arguments) as command:
            command.finish(seconds)

    def forget(self, *names: str) -> None:
        """Remove outputs and work of stages: paths below results/ and work/."""
        for name, root in itertools.product(names, ("results", "work")):
            shutil.rmtree(self.directory / root / name, ignore_errors=True)

    def path(self, relative: Path | str) -> Path:
        """A file of the project."""
        return self.directory / relative

    def results(self) -> dict[str, bytes]:
        """The bytes of everything that must not depend on faults: predictions, metrics, tables and the rest."""
        root = self.directory / "results"
        files = (path for path in root.rglob("*") if path.is_file())
        named = {path.relative_to(root).as_posix(): path for path in files}
        return {name: path.read_bytes() for name, path in sorted(named.items()) if not exempt(name)}


def exempt(name: str) -> bool:
    """whether a result file may differ from that of another run."""
    return any(part in name for part in EXEMPT)
