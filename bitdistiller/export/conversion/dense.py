"""A dequantised copy: ordinary tensors, for engines that read no packed weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bitdistiller.export.directory import companions, read_config
from bitdistiller.export.files import ShardWriter
from bitdistiller.export.load import declared_dtype
from bitdistiller.export.packed import PackedParts, packed_parts
from bitdistiller.export.verify import VerificationError
from bitdistiller.layers import TensorFiles
from bitdistiller.stages.files import write_json


class DenseCopy:
    """The tensors of a packed checkpoint of any format, its values rounded once to the dtype that it declares."""

    def __init__(self, checkpoint: Path) -> None:
        """Raises InputError for a directory that holds no packed checkpoint."""
        self.checkpoint = Path(checkpoint)
        self.config = read_config(self.checkpoint)
        self.dtype = declared_dtype(self.config)
        self.parts: PackedParts = packed_parts(self.checkpoint, self.dtype)

    def __len__(self) -> int:
        return len(self.parts.others) + len(self.parts.names)

    def write(self, directory: Path, writer: ShardWriter, done: Callable[[bool], None]) -> None:
        """Write the model directory, going on after the shards that `writer` has; `done` as in write_checkpoint."""
        for name, tensor in self.parts.others.items():
            done(False if name in writer else writer.add({name: tensor}))
        for name in self.parts.names:
            key = f"{name}.weight"
            done(False if key in writer else writer.add({key: self._value(name)}))
        writer.publish(directory, "model")
        plain = {key: value for key, value in self.config.items() if key != "quantization_config"}
        write_json(directory / "config.json", plain)
        for path in companions(self.checkpoint):
            shutil.copyfile(path, directory / path.name)

    def verify(self, directory: Path) -> int:
        """Compare every tensor in the files; returns their number. Raises VerificationError."""
        files = TensorFiles(directory)
        for name, tensor in self.parts.others.items():
            _require(torch.equal(files.read(name), tensor), directory, name)
        for name in self.parts.names:
            _require(torch.equal(files.read(f"{name}.weight"), self._value(name)), directory, name)
        return len(self)

    def _value(self, name: str) -> Any:
        layout = self.parts.layout
        return layout.format.dequantize(*self.parts.grid(name), layout.group_size).to(self.dtype)


def _require(same: bool, directory: Path, name: str) -> None:
    if not same:
        raise VerificationError(f"{directory}: {name} differs from the checkpoint's")
