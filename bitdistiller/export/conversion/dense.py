"""A dequantised copy: ordinary tensors, for engines that read no packed weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bitdistiller.export.conversion.unfit import require_grouped
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
        """Raises InputError for a directory without a packed checkpoint, Unfit as `require_grouped` does."""
        self.checkpoint = Path(checkpoint)
        self.config = read_config(self.checkpoint)
        self.dtype = declared_dtype(self.config)
        self.parts: PackedParts = packed_parts(self.checkpoint)
        require_grouped(self.checkpoint, self.parts.layout.recipe.quantization)

    def __len__(self) -> int:
        return len(self.parts.others) + len(self.parts.layers)

    def write(self, directory: Path, writer: ShardWriter, done: Callable[[bool], None]) -> None:
        """Write the model directory, going on after the shards that `writer` has; `done` as in write_checkpoint."""
        for name, tensor in self._tensors():
            done(False if name in writer else writer.add({name: tensor()}))
        writer.publish(directory, "model")
        plain = {key: value for key, value in self.config.items() if key != "quantization_config"}
        write_json(directory / "config.json", plain)
        for path in companions(self.checkpoint):
            shutil.copyfile(path, directory / path.name)

    def verify(self, directory: Path) -> int:
        """Compare every tensor in the files; returns their number. Raises VerificationError."""
        files = TensorFiles(directory)
        for name, tensor in self._tensors():
            if not torch.equal(files.read(name), tensor()):
                raise VerificationError(f"{directory}: {name} differs from the checkpoint's")
        return len(self)

    def _tensors(self) -> Iterator[tuple[str, Callable[[], Tensor]]]:
        """Name of every tensor, and what reads it."""
        for name in self.parts.others:
            yield name, partial(self.parts.other, name, self.dtype)
        for layer in self.parts.layers:
            yield f"{layer}.weight", partial(self._value, layer)

    def _value(self, layer: str) -> Tensor:
        return self.parts.values(layer).to(self.dtype)
