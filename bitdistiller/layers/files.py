"""Safetensors on the disk, read one tensor at a time."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from bitdistiller.errors import InputError
from bitdistiller.stages.files import read_json

BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "F16": 16, "BF16": 16, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}


class TensorFiles:
    """The tensors of a checkpoint directory (`<stem>.safetensors`, or shards with their index), read on demand."""

    def __init__(self, directory: Path, stem: str = "model") -> None:
        """Raises InputError when the directory holds no such files."""
        self.directory = directory
        single, index = directory / f"{stem}.safetensors", directory / f"{stem}.safetensors.index.json"
        if index.exists():
            self._file_of: dict[str, str] = dict(read_json(index)["weight_map"])
        elif single.exists():
            with safe_open(single, "pt") as tensors:
                self._file_of = dict.fromkeys(tensors.keys(), single.name)
        else:
            raise InputError(f"{directory}: no {single.name} and no {index.name}; accepted: a safetensors checkpoint")
        self._open: tuple[str, safe_open] | None = None

    @property
    def names(self) -> list[str]:
        """Names of all tensors, in the order of the files."""
        return sorted(self._file_of, key=lambda name: (self._file_of[name], name))

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the dtype of the file."""
        if name not in self._file_of:
            raise InputError(f"{self.directory}: tensor {name} is missing from its files")
        return self._handle(self._file_of[name]).get_tensor(name)

    def nbytes(self, name: str) -> int:
        """Bytes of one tensor, from the header."""
        header = self._handle(self._file_of[name]).get_slice(name)
        return math.prod(header.get_shape()) * BITS[header.get_dtype()] // 8

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, from the header."""
        return tuple(self._handle(self._file_of[name]).get_slice(name).get_shape())

    def close(self) -> None:
        """Let go of the file read last, and so of the memory that its mapped pages count for."""
        self._open = None

    @property
    def total_bytes(self) -> int:
        """Bytes of all files that hold these tensors."""
        return sum((self.directory / name).stat().st_size for name in set(self._file_of.values()))

    def _handle(self, file: str) -> safe_open:
        if self._open is None or self._open[0] != file:
            self._open = (file, safe_open(self.directory / file, "pt"))
        return self._open[1]
