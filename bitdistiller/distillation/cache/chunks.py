"""Chunks of a cache: the fixed batches of a shard, one file for each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from bitdistiller.data.tokens import TokenFile
from bitdistiller.stages.files import replace, temporary_name

CHUNKS = "chunks"


def shard_samples(samples: int, shard: int, shards: int) -> range:
    """The samples of one shard, a contiguous part of all."""
    return range(samples * shard // shards, samples * (shard + 1) // shards)


def plan_batches(file: TokenFile, samples: range, batch_tokens: int) -> list[tuple[int, ...]]:
    """
    Fixed batches of samples, from the longest down, each of at most `batch_tokens` positions, padding included.

    A single longer sample is a batch of its own. The batches depend on the token file and the recipe alone, so an
    interrupted shard meets the same ones again.
    """
    batches: list[list[int]] = []
    width = 0
    for sample in sorted(samples, key=lambda sample: (-file.lengths[sample], sample)):
        if not batches or (len(batches[-1]) + 1) * width > batch_tokens:
            batches.append([])
            width = int(file.lengths[sample])
        batches[-1].append(sample)
    return [tuple(batch) for batch in batches]


def chunk_file(directory: Path, index: int) -> Path:
    """Where the chunk of one batch is kept."""
    return directory / f"{index:06d}.safetensors"


def write_chunk(path: Path, file: TokenFile, samples: tuple[int, ...], rows: dict[str, Tensor]) -> None:
    """
    Write one chunk, whole or not at all.

    rows: tensors of one row per token of the samples, in their order. Beside them the chunk holds `samples` (n,) and
    `offsets` (n + 1,), int64: the first row of every sample, and the number of rows.
    """
    offsets = np.concatenate([[0], np.cumsum(file.lengths[list(samples)])])
    index = {"samples": torch.tensor(samples, dtype=torch.int64), "offsets": torch.from_numpy(offsets.astype(np.int64))}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        save_file(index | {name: tensor.contiguous() for name, tensor in rows.items()}, temporary)
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what a killed attempt left of the chunk it was writing."""
    for leftover in directory.glob(".*.tmp-*"):
        leftover.unlink()


def hand_over(source: Path, target: Path) -> None:
    """Make every chunk of `source` appear in `target` too, without a copy where the file system can."""
    for path in sorted(source.glob("*.safetensors")):
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)
