"""The baselines by method name. A new one is a file with `LIBRARIES` and `quantise(task)`, and a line here."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

BASELINES = {
    "gptq": "bitdistiller.baselines.gptq",
    "awq": "bitdistiller.baselines.awq",
    "autoround": "bitdistiller.baselines.autoround",
}


def get_baseline(method: str) -> ModuleType:
    """The module of a method; it imports its library only when it quantises."""
    return import_module(BASELINES[method])
