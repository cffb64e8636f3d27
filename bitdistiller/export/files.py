"""Safetensors written one shard at a time."""

from __future__ import annotations

import os
import shutil
from itertools import takewhile
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from bitdistiller.stages.files import read_json, replace, temporary_name, write_json

MAX_SHARD_BYTES = 4 << 30


class ShardWriter:
    """Collects tensors and writes a shard whenever the next ones would exceed `limit` bytes (default: 4 GiB).

    Finished shards are recorded in `folder`, so that a killed export goes on after the last of them. At most one shard
    is in memory. Tensors given together stay together.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder, self.limit = folder, MAX_SHARD_BYTES if limit is None else limit
        self._record = folder / "shards.json"
        shards = read_json(self._record) if self._record.exists() else []
        self._shards = list(takewhile(lambda shard: (folder / shard["file"]).exists(), shards))
        for leftover in folder.glob(".shard-*.tmp-*"):
            leftover.unlink()
        self._held: dict[str, Tensor] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._held or any(name in shard["tensors"] for shard in self._shards)

    def add(self, tensors: dict[str, Tensor]) -> bool:
        """Take tensors by name; returns whether this made a shard durable."""
        full = bool(self._held) and _bytes(self._held) + _bytes(tensors) > self.limit
        if full:
            self._flush()
        self._held |= {name: tensor.contiguous() for name, tensor in tensors.items()}
        return full

    def publish(self, directory: Path, stem: str) -> None:
        """Give the shards their names in `directory`, with an index where there are several."""
        if self._held:
            self._flush()
        count = len(self._shards)
        names = [f"{stem}-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
        if count == 1:
            names = [f"{stem}.safetensors"]
        for shard, name in zip(self._shards, names, strict=True):
            _link(self.folder / shard["file"], directory / name)
        if count > 1:
            weight_map = {
                key: name for shard, name in zip(self._shards, names, strict=True) for key in shard["tensors"]
            }
            total = sum(size for shard in self._shards for size in shard["tensors"].values())
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            write_json(directory / f"{stem}.safetensors.index.json", index)

    def clear(self) -> None:
        """Forget the finished shards; call when what was published is safe."""
        self._record.unlink(missing_ok=True)
        for shard in self._shards:
            (self.folder / shard["file"]).unlink(missing_ok=True)
        self._shards = []

    def _flush(self) -> None:
        name = f"shard-{len(self._shards):05}.safetensors"
        temporary = temporary_name(self.folder / name)
        save_file(self._held, temporary, metadata={"format": "pt"})
        replace(temporary, self.folder / name)
        self._shards.append({"file": name, "tensors": {key: tensor.nbytes for key, tensor in self._held.items()}})
        write_json(self._record, self._shards)
        self._held = {}


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
