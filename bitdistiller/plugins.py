"""Losses and number formats of other packages, found by their entry points (docs/adding-a-method.md)."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bitdistiller.errors import InputError

LOSSES = "bitdistiller.losses"
FORMATS = "bitdistiller.formats"


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """What installed packages offer in a group, by name; nothing is imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def load_plugin(group: str, name: str) -> Any:
    """What an entry point names; raises InputError, naming its package, where it cannot be imported."""
    entry = plugins(group)[name]
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        package = entry.dist.name if entry.dist else entry.value
        raise InputError(f"{name}: the package {package} offers it, but {entry.value} fails: {error}") from error
