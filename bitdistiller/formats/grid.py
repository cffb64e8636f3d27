"""What describes a group of weights: its ends, and the grid of values that it may take."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from bitdistiller.errors import InputError


class Ends(NamedTuple):
    """The largest and the smallest weight of each group, both (rows, groups, 1)."""

    maximum: Tensor
    minimum: Tensor


class Grid(NamedTuple):
    """Scales (rows, groups, scales per group), rounded to scale_dtype, and zero points (rows, groups, 1) or None."""

    scale: Tensor
    zero_point: Tensor | None


PerGroup = TypeVar("PerGroup", Ends, Grid)


def group_ends(block: Tensor) -> Ends:
    """The largest and smallest weight of each group; NaN where the group holds one."""
    return Ends(block.amax(dim=-1, keepdim=True), block.amin(dim=-1, keepdim=True))


def require_finite(scale: Tensor, name: str) -> None:
    """InputError when a scale, and with it a weight of its group, is infinite or NaN."""
    if not torch.isfinite(scale).all():
        rows = (~torch.isfinite(scale)).flatten(1).any(dim=1).nonzero().flatten()
        raise InputError(f"{name}: infinite or NaN weights in {len(rows)} of {len(scale)} rows, first in row {rows[0]}")


def join(parts: Sequence[PerGroup]) -> PerGroup:
    """One Ends or Grid from those of consecutive chunks."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(None if field[0] is None else torch.cat(field) for field in zip(*parts, strict=True)))
