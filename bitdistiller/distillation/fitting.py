"""Whether a training fits the memory that is there, and which options would make it fit."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bitdistiller.distillation.memory import Estimate
from bitdistiller.errors import InputError

logger = logging.getLogger(__name__)

VARIABLE = "BITDISTILLER_MEMORY"
"""`warn` starts a training that is not expected to fit."""
MOST_PROCESSES = 64
MEBI = 1 << 20

Change = tuple[str, dict[str, Any]]


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


def check_fits(expected: Estimate, device: float, host: float | None = None) -> None:
    """
    Refuse a training that needs more than there is, naming the change or changes that would make it fit.

    device, host: available bytes where the model computes and, beside GPUs, on the host. Raises InputError; with
    BITDISTILLER_MEMORY=warn it only warns.
    """
    if _fits(expected, device, host):
        return
    short_of_device = expected.device_bytes > device
    needed, there = (expected.device_bytes, device) if short_of_device else (expected.host_bytes, host or 0.0)
    place = "each GPU" if short_of_device and expected.setup.device == "cuda" else "the host"
    message = f"train: needs about {_gb(needed)} on {place}, {_gb(there)} available ({_largest(expected)}); "
    message += f"{_advice(expected, device, host)}; {VARIABLE}=warn starts it anyway"
    if os.environ.get(VARIABLE) == "warn":
        logger.warning("%s", message)
        return
    raise InputError(message)


def _fits(expected: Estimate, device: float, host: float | None) -> bool:
    return expected.device_bytes <= device and (host is None or expected.host_bytes <= host)


def _advice(expected: Estimate, device: float, host: float | None) -> str:
    """The first, by number of changes and then by how little they cost, that would fit; else how far they go."""
    kinds = changes(expected)
    for count in range(1, len(kinds) + 1):
        for chosen in itertools.combinations(kinds, count):
            for picked in itertools.product(*chosen):
                other = expected.change(**_joined(picked))
                if _fits(other, device, host):
                    return f"set {' and '.join(text for text, _ in picked)} (then {_gb(other.device_bytes)})"
    every = [kind[-1] for kind in kinds]
    least = expected.change(**_joined(every))
    tried = f" (even with {', '.join(text for text, _ in every)}: {_gb(least.device_bytes)})" if every else ""
    return f"no option makes it fit{tried}; take a larger machine or a smaller model"


def changes(expected: Estimate) -> list[list[Change]]:
    """What could be changed, cheapest first; of each kind the milder forms first."""
    setup, kinds = expected.setup, []
    if setup.optimizer != "adamw-8bit":
        kinds.append([("optimizer: adamw-8bit", {"optimizer": "adamw-8bit"})])
    sizes = [n for n in range(setup.micro_batch_size - 1, 0, -1) if setup.batch_size % n == 0]
    if sizes:
        kinds.append([(f"micro_batch_size: {n}", {"micro_batch_size": n}) for n in sizes])
    if not setup.gradient_checkpointing:
        kinds.append([("gradient_checkpointing: true", {"gradient_checkpointing": True})])
    if setup.teacher == "live":
        kinds.append([("teacher: cached", {"teacher": "cached"})])
    if setup.device == "cuda":
        kinds.append(_engines(expected))
    return [kind for kind in kinds if kind]


def _engines(expected: Estimate) -> list[Change]:
    """Sharding over the processes there are or more, then the host's memory."""
    setup, found = expected.setup, []
    counts = [n for n in (2**i for i in range(1, MOST_PROCESSES.bit_length())) if n > setup.processes]
    if setup.engine not in ("fsdp", "zero3") and setup.processes > 1:
        counts.insert(0, setup.processes)
    for count in counts:
        local = min(count, max(setup.local_processes, 8))
        options = {"engine": "fsdp", "processes": count, "local_processes": local, "offload": "none"}
        found.append((f"engine: fsdp on {count} GPUs", options))
    if setup.offload != "parameters":
        engine = setup.engine if setup.engine in ("fsdp", "zero3") else "fsdp"
        options = {"engine": engine, "offload": "parameters"}
        found.insert(0, (f"engine: {engine} and offload: parameters", options))
    return found


def _joined(picked: Any) -> dict[str, Any]:
    return {name: value for _, options in picked for name, value in options.items()}


def _largest(expected: Estimate) -> str:
    rows = sorted((row for row in expected.rows if not row.on_host), key=lambda row: -row.bytes)
    return ", ".join(f"{row.name} {_gb(row.bytes)}" for row in rows[:3])


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e9:.2g} GB"
