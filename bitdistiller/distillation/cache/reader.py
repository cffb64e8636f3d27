"""Reading a cached teacher: all shards as one, sample by sample, through memory maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitdistiller.config import Training
from bitdistiller.data.mapped import MappedTensors
from bitdistiller.distillation.cache.chunks import CHUNKS
from bitdistiller.errors import InputError
from bitdistiller.stages import DIGEST, input_digest
from bitdistiller.stages.files import read_json


class Cache:
    """The shards of one cached teacher."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """`check_cache` says whether the shards fit a training; raises InputError for what is no shard."""
        self.counts = _read_counts(directories[0])
        paths = [path for directory in directories for path in sorted((directory / CHUNKS).glob("*.safetensors"))]
        self._chunks = [MappedTensors(path) for path in paths]
        self._place = {
            sample: (number, begin, end)
            for number, chunk in enumerate(self._chunks)
            for sample, begin, end in _index(chunk)
        }

    def __contains__(self, sample: int) -> bool:
        return sample in self._place

    def read(self, name: str, samples: Sequence[int]) -> Tensor:
        """The rows of some samples one after the other, on the CPU: (tokens, ...)."""
        places = [self._place[sample] for sample in samples]
        rows = [self._chunks[number].rows(name, begin, end) for number, begin, end in places]
        return torch.cat(rows or [self._chunks[0].rows(name, 0, 0)])


def check_cache(training: Training, directories: Sequence[Path], tokens: Path, teacher: Path) -> None:
    """
    Raises InputError, before any weight is loaded, where the shards are not all shards of what this training needs.

    They must be of the kind and precision of the recipe, of this token file and of this teacher.
    """
    wanted = {
        "kind": training.cache.kind,
        "k": training.cache.k if training.cache.kind == "topk" else None,
        "precision": training.precision,
        "tokens": input_digest(tokens),
        "teacher": input_digest(teacher),
    }
    subjects = {"tokens": f"the token file {tokens}", "teacher": f"the teacher {teacher}"}
    shards = []
    for directory in directories:
        counts = _read_counts(directory)
        for key, value in wanted.items():
            if counts[key] != value:
                what = f"is not of {subjects[key]}" if key in subjects else f"has {key} {counts[key]}, not {value}"
                raise InputError(f"{directory}: this cached teacher {what}; run cache-teacher for this training")
        shards.append((counts["shard"], counts["shards"]))
    if sorted(shards) != [(shard, shards[0][1]) for shard in range(shards[0][1])]:
        given = ", ".join(f"{shard} of {count}" for shard, count in sorted(shards))
        raise InputError(f"--cache: give every shard of the stage cache-teacher once (found {given})")


def _index(chunk: MappedTensors) -> list[tuple[int, int, int]]:
    offsets = chunk.array("offsets").tolist()
    return list(zip(chunk.array("samples").tolist(), offsets[:-1], offsets[1:], strict=True))


def _read_counts(directory: Path) -> dict[str, Any]:
    counts = read_json(directory / DIGEST)["counts"] if (directory / DIGEST).exists() else {}
    if not {"kind", "precision", "shard", "teacher"} <= counts.keys():
        raise InputError(f"{directory}: not a finished shard of the stage cache-teacher; give its output directory")
    return counts
