"""Safetensors as memory maps: a row is read from the disk when it is asked for, and never the whole file."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<i2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "U8": "|u1",
}
"""NumPy's name of each element type; it has none for bfloat16, which is kept as its bits."""


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Name to dtype, shape and offsets of a safetensors file, and the byte at which its data begins."""
    with path.open("rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        header = json.loads(handle.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


class MappedTensors:
    """The tensors of one safetensors file, as views of one read-only memory map."""

    def __init__(self, path: Path) -> None:
        header, begin = read_header(path)
        whole = np.memmap(path, np.uint8, "r")
        self._bfloat16 = {name for name, entry in header.items() if entry["dtype"] == "BF16"}
        self._arrays = {}
        for name, entry in header.items():
            first, end = entry["data_offsets"]
            part = whole[begin + first : begin + end].view(NUMPY[entry["dtype"]])
            self._arrays[name] = part.reshape(entry["shape"])

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def array(self, name: str) -> np.ndarray:
        """A whole tensor without reading it; bfloat16 comes as int16 bits."""
        return self._arrays[name]

    def rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        """Rows `begin` to `end` (exclusive) of a tensor, as a copy in memory."""
        found = torch.from_numpy(np.array(self._arrays[name][begin:end]))
        return found.view(torch.bfloat16) if name in self._bfloat16 else found
