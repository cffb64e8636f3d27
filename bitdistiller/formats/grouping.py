"""Groups of consecutive input columns."""

from torch import Tensor
from torch.nn import functional as F

from bitdistiller.errors import InputError


def resolve_group_size(in_features: int, group_size: int | None, name: str = "weight", pad: bool = False) -> int:
    """The number of weights that share a scale; None and -1 mean the whole row.

    Raises InputError, naming the layer `name`, when the size is not positive, or does not divide `in_features` and
    `pad` does not allow a last group that is filled up with zeros.
    """
    if group_size is None or group_size == -1:
        return in_features
    if group_size < 1:
        raise InputError(f"group_size: {group_size}; accepted: a positive number, or -1 for whole rows")
    if in_features % group_size and not pad:
        raise InputError(
            f"{name}: group_size {group_size} does not divide its {in_features} input features; accepted: a divisor, "
            "or pad: true to fill the last group up with zeros"
        )
    return group_size


def split_groups(weight: Tensor, group_size: int | None, name: str = "weight", pad: bool = False) -> Tensor:
    """View a weight (out, in) as (out, groups, group_size), where `pad` had to add zeros as a copy of it.

    Raises InputError for anything but a non-empty floating-point matrix, and for a group size that does not divide.
    """
    if weight.ndim != 2 or not weight.is_floating_point() or not weight.numel():
        raise InputError(f"{name}: {weight.dtype} of shape {tuple(weight.shape)}; accepted: a floating-point matrix")
    size = resolve_group_size(weight.shape[1], group_size, name, pad)
    return pad_columns(weight, size).reshape(len(weight), -1, size)


def join_groups(groups: Tensor, in_features: int) -> Tensor:
    """The matrix (out, in) of groups (out, groups, group_size), without padding."""
    return groups.flatten(1)[:, :in_features]


def pad_columns(matrix: Tensor, group_size: int) -> Tensor:
    """A matrix (rows, columns) with zero columns after the last, up to a multiple of the group size."""
    missing = -matrix.shape[-1] % group_size
    return F.pad(matrix, (0, missing)) if missing else matrix


def group_count(in_features: int, group_size: int) -> int:
    """Groups of a row, a padded last one included."""
    return -(-in_features // group_size)
