"""The plugin's file of partitions and their limits, `slurm-partition-config`."""

from __future__ import annotations

from pathlib import Path

import yaml

from bitdistiller.errors import InputError

EXAMPLE = "partitions.example.yaml"


def listed_partitions(path: Path) -> list[str]:
    """The names of the partitions in it; raises InputError when it is no such file."""
    try:
        return list(map(str, yaml.safe_load(path.read_text(encoding="utf-8"))["partitions"]))
    except (OSError, yaml.YAMLError, TypeError, KeyError):
        raise InputError(f"{path}: no file of partitions; profiles/slurm/{EXAMPLE} shows one") from None
