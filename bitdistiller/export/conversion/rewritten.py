"""A packed checkpoint written anew as another model directory, tensor by tensor, and read back."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitdistiller.export.directory import companions, read_config
from bitdistiller.export.files import ShardWriter
from bitdistiller.export.load import declared_dtype
from bitdistiller.export.packed import PackedParts, packed_parts
from bitdistiller.export.verify import VerificationError
from bitdistiller.layers import TensorFiles
from bitdistiller.stages.files import write_json


class Rewritten(ABC):
    """
    What a layout makes of every quantised layer; everything else is copied in the dtype that the model declares.

    suffixes: last parts of the names of a layer's tensors, as `layer` has them.
    """

    suffixes: tuple[str, ...] = ("weight",)

    def __init__(self, checkpoint: Path) -> None:
        """Raises InputError for a directory without a packed checkpoint."""
        self.checkpoint = Path(checkpoint)
        self.config = read_config(self.checkpoint)
        self.dtype: torch.dtype = declared_dtype(self.config)
        self.parts: PackedParts = packed_parts(self.checkpoint)

    @abstractmethod
    def layer(self, name: str) -> dict[str, Tensor]:
        """The tensors of a quantised layer, by the last part of their names."""

    @abstractmethod
    def sizes(self, directory: Path) -> dict[str, Any]:
        """What convert.json says of the written files: `bits_per_weight`, and what a layout has besides."""

    def quantization_config(self) -> dict[str, Any] | None:
        """Of the directory's config.json; None for a model without one."""
        return None

    def __len__(self) -> int:
        return len(self.parts.others) + len(self.parts.layers)

    def write(self, directory: Path, writer: ShardWriter, done: Callable[[bool], None]) -> None:
        """Write the model directory, going on after the shards that `writer` has; `done` as in write_checkpoint."""
        for name, tensors in self._tensors():
            done(False if name in writer else writer.add(tensors()))
        writer.publish(directory, "model")
        config = {key: value for key, value in self.config.items() if key != "quantization_config"}
        quantization = self.quantization_config()
        write_json(directory / "config.json", config | ({"quantization_config": quantization} if quantization else {}))
        for path in companions(self.checkpoint):
            shutil.copyfile(path, directory / path.name)

    def verify(self, directory: Path) -> int:
        """Compare every tensor in the files; returns the number of layers and others. Raises VerificationError."""
        files = TensorFiles(directory)
        for _, tensors in self._tensors():
            for name, expected in tensors().items():
                if not torch.equal(files.read(name), expected):
                    raise VerificationError(f"{directory}: {name} differs from the checkpoint's")
        return len(self)

    def _tensors(self) -> Iterator[tuple[str, Callable[[], dict[str, Tensor]]]]:
        """The first name of every layer and other tensor, and what reads it."""
        for name in self.parts.others:
            yield name, partial(self._other, name)
        for name in self.parts.layers:
            yield f"{name}.{self.suffixes[0]}", partial(self._layer, name)

    def _other(self, name: str) -> dict[str, Tensor]:
        return {name: self.parts.other(name, self.dtype)}

    def _layer(self, layer: str) -> dict[str, Tensor]:
        return {f"{layer}.{suffix}": tensor for suffix, tensor in self.layer(layer).items()}
