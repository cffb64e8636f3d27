"""Gram matrices on the disk: one file a block, to be added up over shards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from bitdistiller.calibration.gram import GramAccumulator
from bitdistiller.calibration.ranges import save_tensors


class Gram(NamedTuple):
    """Gram matrices of one layer's input, (groups, g, g) float32, undivided, and the tokens that counted."""

    matrix: Tensor
    tokens: int


def grams_file(directory: Path, block: int) -> Path:
    """Where the Grams of one block are."""
    return directory / f"block-{block:04}.safetensors"


def save_grams(path: Path, grams: dict[str, GramAccumulator]) -> None:
    """Write the Grams of one block; layers that share an input share one Gram, named after the first of them.

    Tensors: `<first>.gram` and `<first>.tokens`; the metadata gives every layer's first.
    """
    firsts: dict[GramAccumulator, str] = {}
    shared = {name: firsts.setdefault(gram, name) for name, gram in grams.items()}
    tensors = {f"{name}.gram": gram.gram() for gram, name in firsts.items()}
    tensors |= {f"{name}.tokens": torch.tensor(gram.tokens) for gram, name in firsts.items()}
    save_tensors(path, tensors, shared)


def add_grams(files: Sequence[Path]) -> dict[str, Gram]:
    """The Grams of one block by layer, summed over the files of all shards in float64.

    A layer that no token reached in one shard is left to the others.
    """
    sums: dict[tuple[str | None, ...], Gram] = {}
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, "pt")) for file in files]
        firsts = [file.metadata() or {} for file in opened]
        found = {}
        for name in dict.fromkeys(name for shared in firsts for name in shared):
            key = tuple(shared.get(name) for shared in firsts)
            if key not in sums:
                sums[key] = _sum(opened, key)
            found[name] = sums[key]
    return found


def _sum(opened: Sequence[safe_open], names: Sequence[str | None]) -> Gram:
    parts = [(file, name) for file, name in zip(opened, names, strict=True) if name is not None]
    total = parts[0][0].get_tensor(f"{parts[0][1]}.gram").double()
    for file, name in parts[1:]:
        total += file.get_tensor(f"{name}.gram")
    return Gram(total.float(), sum(file.get_tensor(f"{name}.tokens").item() for file, name in parts))
