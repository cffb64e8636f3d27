"""Layers by their place: the block they are in, and the projection they are there."""

from __future__ import annotations

import re
from collections.abc import Iterable


def place(name: str) -> tuple[int, str]:
    """Block and the name inside it: `model.layers.3.mlp.experts.0.w1` is (3, `mlp.experts.0.w1`).

    A name without a number is of block 0.
    """
    match = re.search(r"(?:^|\.)(\d+)\.(.+)$", name)
    return (0, name) if match is None else (int(match[1]), match[2])


def split_name(name: str) -> tuple[int, str]:
    """Block and kind of a layer, which is its place without numbers: (3, `mlp.experts.w1`)."""
    block, rest = place(name)
    return block, ".".join(part for part in rest.split(".") if not part.isdigit())


def short_kinds(kinds: Iterable[str]) -> dict[str, str]:
    """For every kind the fewest last parts of it that no other kind ends with: `v_proj`, `attn.c_proj`."""
    kinds = list(dict.fromkeys(kinds))
    return {kind: _shortest(kind, [other for other in kinds if other != kind]) for kind in kinds}


def _shortest(kind: str, others: list[str]) -> str:
    parts = kind.split(".")
    for count in range(1, len(parts)):
        if not any(other.split(".")[-count:] == parts[-count:] for other in others):
            return ".".join(parts[-count:])
    return kind
