"""The one switch: which of the three forms of a formula runs. All three give the same values."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from bitdistiller.errors import InputError
from bitdistiller.kernels import compiled
from bitdistiller.kernels.formula import Formula

VARIABLE = "BITDISTILLER_KERNELS"
CHOICES = ("auto", "eager", "compiled", "triton")
WORTH_COMPILING = 1 << 20
"""Elements from which `auto` compiles on a CPU: below, a few seconds of compilation are never earned back."""
LARGEST_TRITON_GROUP = 1 << 14
"""Elements of the largest group that one Triton program holds in registers."""


@contextmanager
def using(name: str) -> Iterator[None]:
    """Within the block, the environment variable BITDISTILLER_KERNELS is `name`: auto, eager, compiled or triton."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def setting() -> str:
    """What BITDISTILLER_KERNELS says, `auto` where it says nothing; InputError for anything but the four choices."""
    chosen = os.environ.get(VARIABLE) or "auto"
    if chosen not in CHOICES:
        raise InputError(f"{VARIABLE}: {chosen!r}; accepted: {', '.join(CHOICES)}")
    return chosen


def choose(formula: Formula, groups: Tensor) -> str:
    """eager, compiled or triton for groups (n, group_size) of weights.

    Raises InputError when the switch asks for a form that cannot run here.
    """
    chosen = setting()
    if chosen == "auto":
        return _best(formula, groups)
    if chosen == "triton" and not _triton_can(formula, groups):
        raise InputError(f"{VARIABLE}: triton needs the package triton, a CUDA device and float32 or narrower weights")
    if chosen == "compiled" and not worth_compiling(groups, 0):
        raise InputError(f"{VARIABLE}: compiled runs on a CPU and needs a C++ compiler and Python's headers")
    return chosen


def worth_compiling(tensor: Tensor, elements: int = WORTH_COMPILING) -> bool:
    """Whether a compiled CPU kernel runs on this tensor and pays, within what the switch allows."""
    large = tensor.device.type == "cpu" and tensor.numel() >= elements
    return setting() in ("auto", "compiled") and large and len(tensor) > 1 and compiled.works()


def _best(formula: Formula, groups: Tensor) -> str:
    if groups.device.type == "cuda" and _triton_can(formula, groups):
        return "triton"
    return "compiled" if worth_compiling(groups) else "eager"


def _triton_can(formula: Formula, groups: Tensor) -> bool:
    fits = groups.dtype != torch.float64 and groups.shape[1] <= LARGEST_TRITON_GROUP
    somewhere = groups.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return fits and somewhere and _has_triton() and formula.triton_kernels() is not None


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
