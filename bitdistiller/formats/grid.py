"""What describes a group of weights: its ends, and the grid of values that it may take."""

from typing import NamedTuple

import torch
from torch import Tensor

from bitdistiller.errors import InputError


class Ends(NamedTuple):
    """The largest and the smallest weight of each group, both (..., groups, 1)."""

    maximum: Tensor
    minimum: Tensor


class Grid(NamedTuple):
    """Scales (..., groups, scales per group), rounded to scale_dtype, and zero points (..., groups, 1) or None."""

    scale: Tensor
    zero_point: Tensor | None


def group_ends(groups: Tensor) -> Ends:
    """The largest and smallest weight of each group (..., group_size); NaN where the group holds one."""
    return Ends(groups.amax(dim=-1, keepdim=True), groups.amin(dim=-1, keepdim=True))


def add_to_ends(gradient: Tensor, groups: Tensor, ends: Ends, shares: Ends) -> Tensor:
    """Add each end's share to the weights that equal it, split evenly among ties as autograd of amax does."""
    for end, share in zip(ends, shares, strict=True):
        tied = (groups == end).to(groups.dtype)
        gradient = gradient.addcmul(tied, share / tied.sum(dim=-1, keepdim=True))
    return gradient


def require_finite(scale: Tensor, name: str, what: str = "weights") -> None:
    """InputError when a scale (out, ...), and with it a weight of its group (or what it is of), is infinite or NaN."""
    if not torch.isfinite(scale).all():
        rows = (~torch.isfinite(scale)).flatten(1).any(dim=1).nonzero().flatten()
        raise InputError(f"{name}: infinite or NaN {what} in {len(rows)} of {len(scale)} rows, first in row {rows[0]}")
