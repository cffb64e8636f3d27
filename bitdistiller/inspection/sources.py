"""What kind of directory is it, and how are its layers read: one source per kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from bitdistiller.config import Quantization
from bitdistiller.errors import InputError
from bitdistiller.export.directory import quant_method, read_config
from bitdistiller.inspection.rows import LayerRow
from bitdistiller.layers import TensorFiles

DEFAULT = Quantization(format="int2")


@dataclass(frozen=True)
class Options:
    """What was asked for besides the directory; `quantization` holds only the keys that were given."""

    quantization: dict[str, Any] = field(default_factory=dict)
    clip: Path | None = None
    reference: Path | None = None

    def refuse(self, names: tuple[str, ...], because: str) -> None:
        """InputError when one of the directories `names` was given."""
        for name in names:
            if getattr(self, name) is not None:
                raise InputError(f"--{name}: {because}; drop it")

    def resolve(self, origin: Path, recorded: Quantization | None) -> Quantization:
        """The quantization on record, which what was asked for must equal; else what was asked for."""
        if recorded is None:
            return Quantization(**(DEFAULT.model_dump() | self.quantization))
        for key, value in self.quantization.items():
            if value != getattr(recorded, key):
                option = key.replace("_", "-")
                raise InputError(f"--{option}: {value} was asked for, but {origin} has {getattr(recorded, key)}")
        return recorded


class Source(ABC):
    """A directory whose layers are looked at one at a time.

    title: what it is, in one line. layers: names of the layers in the order of the model. has_ratios: whether rows of
    clipped layers say what was kept.
    """

    title: str
    quantization: Quantization
    layers: list[str]
    has_ratios: bool = False

    @abstractmethod
    def row(self, layer: str) -> LayerRow:
        """Everything that can be said of a layer; reads its tensors."""


class Reference:
    """The full-precision model that errors are measured against."""

    def __init__(self, directory: Path) -> None:
        """Raises InputError when the directory is no full-precision model."""
        method = quant_method(read_config(directory))
        if method is not None:
            raise InputError(f"--reference: {directory} is quantised ({method}); accepted: full-precision weights")
        self.files = TensorFiles(directory)

    def weight(self, layer: str, shape: tuple[int, ...]) -> Tensor:
        """The weight (out, in) of a layer in float32; InputError when its shape is another."""
        weight = self.files.read(f"{layer}.weight").float()
        if tuple(weight.shape) != tuple(shape):
            raise InputError(
                f"--reference: {layer} in {self.files.directory} is {tuple(weight.shape)}; accepted: {tuple(shape)}"
            )
        return weight


def open_source(path: Path, options: Options) -> Source:
    """
    The source for a directory: packed, a clip search, a trained student, or a full-precision model.

    Raises InputError when it is none of them, or when the options do not fit it.
    """
    from bitdistiller.inspection.clip_source import ClipSource, is_clip_output
    from bitdistiller.inspection.masters_source import MastersSource
    from bitdistiller.inspection.packed_source import PackedSource

    if not path.exists():
        raise InputError(f"{path}: no such directory; accepted: a model, a packed checkpoint or an output of clip")
    if is_clip_output(path):
        return ClipSource(path, options)
    if quant_method(read_config(path)) is not None:
        return PackedSource(path, options)
    return MastersSource(path, options)


def require_groups(path: Path, quantization: Quantization) -> None:
    """Raises InputError for formats without groups, of which the columns say nothing."""
    if not quantization.grouped:
        raise InputError(f"{path}: format {quantization.format} has no groups; accepted: formats that have")
