"""The Snakemake profile that a run would use, as far as the checks look into it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bitdistiller.cluster.partition_file import listed_partitions
from bitdistiller.cluster.profile import user_profile
from bitdistiller.errors import InputError
from bitdistiller.resources import ClusterSettings, cluster_settings

DEFAULT_INIT_SECONDS = 40
"""The plugin's own `slurm-init-seconds-before-status-checks`."""
UNSET = "CHANGE_ME"


@dataclass(frozen=True)
class Profile:
    """A profile's file and its keys; what it leaves out has the plugin's default."""

    path: Path
    keys: Mapping[str, Any] = field(repr=False)

    @property
    def status_command(self) -> str:
        """sacct or squeue."""
        return str(self.keys.get("slurm-status-command", "sacct"))

    @property
    def init_seconds(self) -> int:
        """Seconds before the plugin first asks for a job's state."""
        return int(self.keys.get("slurm-init-seconds-before-status-checks", DEFAULT_INIT_SECONDS))

    @property
    def requeue(self) -> bool:
        """Whether jobs are submitted with --requeue."""
        return bool(self.keys.get("slurm-requeue", False))

    @property
    def latency_wait(self) -> float:
        """Seconds that Snakemake waits for a file to appear."""
        return float(self.keys.get("latency-wait", 5))

    @property
    def jobs(self) -> int:
        """Jobs at a time; 1 where the profile leaves it to the command line."""
        value = self.keys.get("jobs", 1)
        return int(value) if str(value).isdigit() else 1

    @property
    def settings(self) -> ClusterSettings:
        """What the default resources say about the cluster."""
        return cluster_settings(self.defaults)

    @property
    def defaults(self) -> Mapping[str, Any]:
        """`default-resources`."""
        return self._section("default-resources")

    @property
    def listed_partitions(self) -> tuple[str, ...]:
        """The partitions in the file that `slurm-partition-config` names, from here or from beside the profile."""
        name = self.keys.get("slurm-partition-config")
        places = [Path(str(name)), self.path.parent / str(name)]
        file = next((place for place in places if name and place.is_file()), None)
        return () if file is None else tuple(listed_partitions(file))

    def of_rule(self, rule: str) -> Mapping[str, Any]:
        """`set-resources` of one rule."""
        return self._section("set-resources").get(rule) or {}

    def threads_of(self, rule: str) -> int | None:
        """`set-threads` of one rule."""
        value = self._section("set-threads").get(rule)
        return None if value is None else int(value)

    def text(self, name: str) -> str:
        """A default resource without Snakemake's quotes, `slurm_partition`; empty where it is not set."""
        return str(self.defaults.get(name) or "").strip("'\"")

    def _section(self, key: str) -> Mapping[str, Any]:
        value = self.keys.get(key) or {}
        if isinstance(value, list):  # the other spelling: [name=value, rule:name=value]
            return _from_assignments(value)
        return value


def _from_assignments(lines: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in lines:
        name, _, value = str(line).partition("=")
        rule, colon, resource = name.partition(":")
        if colon:
            found.setdefault(rule, {})[resource] = value
        else:
            found[name] = value
    return found


def find_profile(name: str) -> Profile:
    """
    The profile called `name`, as `snakemake --profile NAME` finds it, else in profiles/; or the one at this path.

    Raises InputError where there is none.
    """
    home = user_profile().parent
    places = [Path(name), home / name, Path("/etc/xdg/snakemake", name), Path("profiles", name)]
    for place in places:
        file = place if place.is_file() else _newest(place)
        if file is not None:
            return read_profile(file)
    raise InputError(
        f"--profile {name}: no profile in {', '.join(map(str, places))}; bitdistiller profile install slurm"
    )


def _newest(directory: Path) -> Path | None:
    files = [*directory.glob("profile*.yaml"), *directory.glob("config*.yaml")]
    return max(files, key=_version, default=None)


def _version(path: Path) -> tuple[int, str]:
    found = re.search(r"\.v(\d+)\+$", path.stem)
    return (int(found[1]) if found else 0, path.name)


def read_profile(path: Path) -> Profile:
    """The profile in a file; raises InputError when it is no YAML mapping."""
    try:
        keys = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as problem:
        raise InputError(f"{path}: not YAML: {' '.join(str(problem).split())}") from None
    if not isinstance(keys, dict):
        raise InputError(f"{path}: not a profile; accepted: a YAML mapping of Snakemake's options")
    return Profile(path, keys)
