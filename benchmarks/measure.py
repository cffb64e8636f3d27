"""What all benchmarks share: medians, peak memory, the machine in one line, CSV files."""

from __future__ import annotations

import csv
import ctypes
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
"""The naive doubles that everything is measured against are those of the tests."""


def seconds(function: Callable[[], Any], runs: int, warm_up: int = 1) -> float:
    """Median wall time of `runs` calls, in seconds."""
    return statistics.median(timings(function, runs, warm_up))


def timings(function: Callable[[], Any], runs: int, warm_up: int = 1) -> list[float]:
    """Wall time of each of `runs` calls after `warm_up` others; waits for a GPU where there is one."""
    for _ in range(warm_up):
        function()
    return [_timed(function) for _ in range(runs)]


def _timed(function: Callable[[], Any]) -> float:
    _wait()
    begin = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - begin


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mib(function: Callable[[], Any], device: str = "cpu") -> float:
    """Memory that one call takes at its peak beyond what was in use before it, in MiB (resident set, or CUDA's)."""
    before = reset_peak(device)
    function()
    _wait()
    return highest_mib(device) - before


def reset_peak(device: str) -> float:
    """Begin to look for a new peak; what is in use now, in MiB."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed would otherwise be used again, unseen
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS") / 2**10


def highest_mib(device: str) -> float:
    """The largest memory in use since `reset_peak`, in MiB."""
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else process_peak_mib()


def process_peak_mib() -> float:
    """The largest resident set of this process so far, in MiB."""
    return _status("VmHWM") / 2**10


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}")


def machine(device: str = "cpu") -> str:
    """Processor or GPU, cores in use and versions."""
    versions = f"torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}"
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {versions}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads, {versions}"


def write_csv(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write `benchmarks/<name>.csv`; rows of a device that was not there now are kept from the file as it was."""
    path, rows = Path(__file__).with_name(f"{name}.csv"), list(rows)
    devices = {row["device"] for row in rows}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as handle:
            rows += [row for row in csv.DictReader(handle) if row["device"] not in devices]
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        sys.stdout.write("  ".join(f"{key}={value}" for key, value in row.items() if key != "machine") + "\n")


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
