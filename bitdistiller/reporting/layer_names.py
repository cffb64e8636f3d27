"""Layers by their place: the block they are in, and the projection they are there."""

from __future__ import annotations

import re
from collections.abc import Iterable


def split_name(name: str) -> tuple[int, str]:
    """Block and kind of a layer: `model.layers.3.mlp.experts.0.w1` is (3, `mlp.experts.w1`), other numbers left out.

    A name without a number is of block 0.
    """
    match = re.search(r"(?:^|\.)(\d+)\.(.+)$", name)
    if match is None:
        return 0, name
    return int(match[1]), ".".join(part for part in match[2].split(".") if not part.isdigit())


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
