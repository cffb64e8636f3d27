"""Groups of consecutive input columns, and the walk over them that keeps temporaries in the cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bitdistiller.errors import InputError

CPU_CHUNK = 1 << 19
DEVICE_CHUNK = 1 << 25


def resolve_group_size(in_features: int, group_size: int | None, name: str = "weight") -> int:
    """The number of weights that share a scale; None and -1 mean the whole row.

    Raises InputError, naming the layer `name`, when the size is not positive or does not divide `in_features`.
    """
    if group_size is None or group_size == -1:
        return in_features
    if group_size < 1:
        raise InputError(f"group_size: {group_size}; accepted: a positive number, or -1 for whole rows")
    if in_features % group_size:
        raise InputError(f"{name}: group_size {group_size} does not divide its {in_features} input features")
    return group_size


def split_groups(weight: Tensor, group_size: int | None, name: str = "weight") -> Tensor:
    """View a weight (out, in) as (out, groups, group_size).

    Raises InputError for anything but a non-empty floating-point matrix, and for a group size that does not divide.
    """
    if weight.ndim != 2 or not weight.is_floating_point() or not weight.numel():
        raise InputError(f"{name}: {weight.dtype} of shape {tuple(weight.shape)}; accepted: a floating-point matrix")
    return weight.reshape(len(weight), -1, resolve_group_size(weight.shape[1], group_size, name))


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays float64; every other input is quantised in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def row_chunks(groups: Tensor) -> Iterator[slice]:
    """Slices of rows whose elements fit the processor's cache or, on a device, a modest workspace."""
    limit = CPU_CHUNK if groups.device.type == "cpu" else DEVICE_CHUNK
    step = max(1, limit // groups[0].numel())
    for start in range(0, len(groups), step):
        yield slice(start, start + step)


class Workspace:
    """Named scratch tensors, reused from chunk to chunk: a fresh allocation costs more than the arithmetic on it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, like: Tensor) -> Tensor:
        """Scratch with the shape, arithmetic dtype and device of `like`; its content is undefined."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < len(like):
            buffer = torch.empty(like.shape, dtype=arithmetic_dtype(like.dtype), device=like.device)
            self._buffers[name] = buffer
        return buffer[: len(like)]

    def upcast(self, name: str, block: Tensor) -> Tensor:
        """`block` itself when it already has the arithmetic dtype, otherwise a scratch copy that has."""
        if block.dtype == arithmetic_dtype(block.dtype):
            return block
        return self.take(name, block).copy_(block)
