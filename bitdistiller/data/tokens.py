"""The token file: a mix encoded once, read through a memory map by every process that trains on it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from bitdistiller.data.mapped import MappedTensors
from bitdistiller.data.tokenising import Sequence
from bitdistiller.errors import InputError
from bitdistiller.stages import DIGEST
from bitdistiller.stages.files import read_json

TOKENS = "tokens.safetensors"


class TokenFile:
    """
    The output directory of the stage `tokenize`.

    `tokens.safetensors` holds `input_ids` (tokens,) int32, `offsets` (samples + 1,) int64 and `completion`
    (samples, 2) int32: start and end (exclusive) of what the teacher wrote, counted from the sample's first token.
    """

    def __init__(self, directory: Path) -> None:
        """Raises InputError when the directory is not the finished output of `tokenize`."""
        self.directory = directory
        self.counts = read_counts(directory)
        self._mapped = MappedTensors(directory / TOKENS)
        self.offsets: np.ndarray = np.array(self._mapped.array("offsets"))
        self._lengths = np.diff(self.offsets)
        self.completions: np.ndarray = np.array(self._mapped.array("completion"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every sample, (samples,) int64."""
        return self._lengths

    @property
    def pad(self) -> int:
        """Token id that fills up rows."""
        return self.counts["pad"]

    def ids(self, sample: int) -> torch.Tensor:
        """Token ids of one sample, (length,) int64."""
        return self._mapped.rows("input_ids", self.offsets[sample], self.offsets[sample + 1]).long()

    def sequence(self, sample: int) -> Sequence:
        """One sample as `encode_record` made it."""
        start, end = self.completions[sample].tolist()
        return Sequence(self.ids(sample).tolist(), start, end)


def read_counts(directory: Path) -> dict[str, Any]:
    """What the digest of a token file says (samples, tokens, longest, pad, ...); raises InputError without one."""
    if not (directory / DIGEST).exists() or not (directory / TOKENS).exists():
        raise InputError(f"{directory}: not a finished token file; give the output directory of the stage tokenize")
    return read_json(directory / DIGEST)["counts"]


def write_tokens(path: Path, sequences: Iterable[Sequence]) -> dict[str, int]:
    """Write the token file of some sequences; returns its counts: samples, tokens, longest."""
    ids, lengths, completions = [], [], []
    for sequence in sequences:
        ids.append(np.array(sequence.input_ids, dtype=np.int32))
        lengths.append(len(sequence.input_ids))
        completions.append((sequence.completion_start, sequence.completion_end))
    tensors = {
        "input_ids": torch.from_numpy(np.concatenate(ids or [np.empty(0, np.int32)])),
        "offsets": torch.tensor([0, *np.cumsum(lengths).tolist()], dtype=torch.int64),
        "completion": torch.tensor(completions, dtype=torch.int32).reshape(-1, 2),
    }
    save_file(tensors, path)
    return {"samples": len(lengths), "tokens": sum(lengths), "longest": max(lengths, default=0)}
