"""How much memory there is to be had, on a GPU and on a host that has limits of its own for this job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

MEBI = 1 << 20


def available(device: torch.device | str, root: Path = Path("/")) -> float:
    """
    Bytes that can still be had: free memory of a GPU, or the least of what the host's limits leave.

    On the host: MemAvailable, what is left of the control group's limit (version 2 or 1), and SLURM_MEM_PER_NODE.
    `root`: where /proc and /sys are.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return min(_host_limits(root, os.environ), default=float("inf"))


def _host_limits(root: Path, environment: Mapping[str, str]) -> Iterator[float]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024
    yield from _group_limits(root)
    if environment.get("SLURM_MEM_PER_NODE", "").isdigit() and int(environment["SLURM_MEM_PER_NODE"]):
        yield int(environment["SLURM_MEM_PER_NODE"]) * MEBI


def _group_limits(root: Path) -> Iterator[float]:
    """What every control group above this process leaves: its limit without what it uses and cannot drop."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        limit, used = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        )
        folder = top / name.strip().lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(top):
                break
            most = "".join(_lines(group / limit)).strip()
            if most.isdigit():
                yield int(most) - _number(group / used) + _cached(group)


def _cached(group: Path) -> int:
    """Bytes of file pages that the kernel drops when they are needed."""
    pairs = (line.split() for line in _lines(group / "memory.stat"))
    found = {name: int(value) for name, value in pairs}
    return found.get("total_inactive_file", found.get("inactive_file", 0))


def _number(path: Path) -> int:
    return int("".join(_lines(path)).strip() or 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
