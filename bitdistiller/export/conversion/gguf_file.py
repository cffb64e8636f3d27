"""GGUF files, written tensor by tensor and read back."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import torch
from torch import Tensor

from bitdistiller.export.conversion.architecture import ROPE_FACTORS, Architecture
from bitdistiller.export.conversion.blocks import BlockType
from bitdistiller.export.conversion.source import PackedMasters
from bitdistiller.export.conversion.vocabulary import Vocabulary
from bitdistiller.export.verify import VerificationError

PLAIN = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}
"""The number in tensor headers of a plain dtype."""


@dataclass(frozen=True)
class Entry:
    """A tensor of the file: its name and shape, the number of its type, its bytes, and how they are made."""

    name: str
    shape: tuple[int, ...]
    kind: int
    nbytes: int
    make: Callable[[], Tensor]


class GGUFContents:
    """What a GGUF file of a packed checkpoint consists of."""

    def __init__(self, masters: PackedMasters, blocks: BlockType) -> None:
        """Raises Unfit for an architecture or a tokenizer that the file cannot describe."""
        self.masters, self.blocks = masters, blocks
        self.architecture = Architecture(masters.directory)
        self.vocabulary = Vocabulary(masters.directory, self.architecture.config.vocab_size)

    def write(self, path: Path, done: Callable[[], None]) -> None:
        """Write the file; at most one tensor is in memory. `done` is called after every one."""
        entries = list(self._entries())
        writer = gguf.GGUFWriter(None, self.architecture.name)
        writer.add_file_type(self.blocks.file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        self.architecture.describe(writer)
        self.vocabulary.describe(writer, self.architecture.config)
        for entry in entries:
            # The number stands for itself: the library does not know every type that engines have.
            writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), entry.nbytes, raw_dtype=entry.kind)
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in entries:
            writer.write_tensor_data(entry.make().contiguous().view(torch.uint8).numpy())
            done()
        writer.close()

    def verify(self, path: Path, done: Callable[[], None]) -> int:
        """Read the file back and compare every tensor's values; returns their number. Raises VerificationError."""
        stored, entries = read_index(path), {entry.name: entry for entry in self._entries()}
        _require(stored.keys() == entries.keys(), f"{path}: its tensors are not those of the checkpoint")
        layers = {self.architecture.tensor_name(f"{layer}.weight"): layer for layer in self.masters.layers}
        for name, entry in entries.items():
            kind, shape, offset = stored[name]
            _require((kind, shape) == (entry.kind, entry.shape), f"{path}: {name}: its header differs")
            found = torch.from_numpy(np.fromfile(path, np.uint8, entry.nbytes, offset=offset))
            if name in layers:
                layer = layers[name]
                expected = self.architecture.ordered(f"{layer}.weight", self.masters.values(layer))
                same = torch.equal(self.blocks.decode(found.view(-1, self.blocks.bytes)).view(shape), expected)
            else:
                same = torch.equal(found, entry.make().contiguous().view(torch.uint8).flatten())
            _require(same, f"{path}: {name}: its values differ from the checkpoint's")
            done()
        return len(entries)

    def __len__(self) -> int:
        return sum(1 for _ in self._entries())

    def _entries(self) -> Iterator[Entry]:
        if (factors := self.architecture.rope_factors()) is not None:
            yield _plain(ROPE_FACTORS, tuple(factors.shape), torch.float32, lambda: factors)
        for name in self.masters.others:
            shape = self.masters.files.shape(name)
            dtype = torch.float32 if len(shape) == 1 else self.masters.dtype
            yield _plain(self.architecture.tensor_name(name), shape, dtype, lambda n=name, d=dtype: self._other(n, d))
        for layer, (rows, columns) in self.masters.layers.items():
            nbytes = rows * columns // self.blocks.size * self.blocks.bytes
            name = self.architecture.tensor_name(f"{layer}.weight")
            yield Entry(name, (rows, columns), self.blocks.number, nbytes, lambda n=layer: self._layer(n))

    def _other(self, name: str, dtype: torch.dtype) -> Tensor:
        return self.architecture.ordered(name, self.masters.other(name, dtype))

    def _layer(self, layer: str) -> Tensor:
        parts = (self.architecture.ordered(f"{layer}.weight", part) for part in self.masters.quantized(layer))
        return self.blocks.tensor(*parts, name=layer)


def _plain(name: str, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[[], Tensor]) -> Entry:
    return Entry(name, shape, PLAIN[dtype], int(np.prod(shape)) * dtype.itemsize, make)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise VerificationError(message)


def read_index(path: Path) -> dict[str, tuple[int, tuple[int, ...], int]]:
    """Number of the type, shape and byte offset of every tensor in a GGUF file, by name."""
    with open(path, "rb") as handle:
        magic, version, tensors, pairs = struct.unpack("<4sIQQ", handle.read(24))
        _require((magic, version) == (b"GGUF", 3), f"{path}: not a GGUF file of version 3")
        alignment = 32
        for _ in range(pairs):
            key, value = _text(handle), _value(handle, _number(handle, "I"))
            alignment = value if key == "general.alignment" else alignment
        index = {}
        for _ in range(tensors):
            name, dimensions = _text(handle), _number(handle, "I")
            shape = tuple(_number(handle, "Q") for _ in range(dimensions))[::-1]
            index[name] = (_number(handle, "I"), shape, _number(handle, "Q"))
        start = -(-handle.tell() // alignment) * alignment
    return {name: (kind, shape, start + offset) for name, (kind, shape, offset) in index.items()}


CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9


def _number(handle: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", handle.read(struct.calcsize(f"<{code}")))[0]


def _text(handle: BinaryIO) -> str:
    return handle.read(_number(handle, "Q")).decode("utf-8", errors="replace")


def _value(handle: BinaryIO, kind: int) -> Any:
    if kind == TEXT:
        return _text(handle)
    if kind != ARRAY:
        return _number(handle, CODES[kind])
    inner, count = _number(handle, "I"), _number(handle, "Q")
    return [_value(handle, inner) for _ in range(count)]
