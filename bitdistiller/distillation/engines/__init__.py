"""Engines: how a student is held by one or many processes."""

from __future__ import annotations

from bitdistiller.distillation.engines.base import Engine
from bitdistiller.errors import InputError

NAMES = ("single", "ddp", "fsdp", "zero2", "zero3")


def choose(requested: str, size: int) -> str:
    """The engine to use: `auto` is `single` for one process and `ddp` for several. Raises InputError for a misfit."""
    if requested == "auto":
        return "single" if size == 1 else "ddp"
    if requested == "single" and size > 1:
        raise InputError(
            f"training.engine: single is one process, {size} were started; accepted: ddp, fsdp, zero2, zero3"
        )
    return requested


def engine_class(name: str) -> type[Engine]:
    """The class of an engine; its libraries are imported now. Raises InputError where one is missing."""
    if name == "fsdp":
        from bitdistiller.distillation.engines.fsdp import FsdpEngine

        return FsdpEngine
    if name in ("zero2", "zero3"):
        from bitdistiller.distillation.engines import zero

        zero.import_deepspeed()
        return zero.Zero2Engine if name == "zero2" else zero.Zero3Engine
    from bitdistiller.distillation.engines import local

    return local.DdpEngine if name == "ddp" else local.SingleEngine


__all__ = ["NAMES", "Engine", "choose", "engine_class"]
