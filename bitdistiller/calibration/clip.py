"""Asymmetric clipping (arXiv 2402.10631, 3.1): for every group the pair of ends that least disturbs the output."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from bitdistiller.calibration.gram import gram_root
from bitdistiller.errors import InputError
from bitdistiller.formats import NumberFormat
from bitdistiller.formats.grid import Ends, group_ends, require_finite
from bitdistiller.formats.grouping import CPU_CHUNK, DEVICE_CHUNK, Workspace, arithmetic_dtype, split_groups

RATIOS = tuple(1 - step / 20 for step in range(10))


class ClipSearch(NamedTuple):
    """What the search found for each group; all (out, groups, 1).

    `maximum_ratio` and `minimum_ratio` are the kept shares of the group's ends. Errors are sums over the calibration
    tokens of the squared change that the group causes in the layer's output, `error_before` that of no clipping.
    """

    maximum: Tensor
    minimum: Tensor
    maximum_ratio: Tensor
    minimum_ratio: Tensor
    error_before: Tensor
    error_after: Tensor


def search_clip(
    weight: Tensor, gram: Tensor, number_format: NumberFormat, group_size: int | None, name: str = "weight"
) -> tuple[Tensor, Tensor]:
    """The clip ends (max, min) of every group, each (out, groups, 1); arguments and errors as in `search`."""
    found = search(weight, gram, number_format, group_size, name)
    return found.maximum, found.minimum


@torch.no_grad()
def search(
    weight: Tensor, gram: Tensor, number_format: NumberFormat, group_size: int | None, name: str = "weight"
) -> ClipSearch:
    """Search the grid `M (1 - i/20)`, `m (1 - j/20)`, i, j = 0..9, for the first strict minimum of `d^T G d`.

    `d` is the change of a group of `weight` (out, in) when it is clamped to the pair and quantised, `G` its matrix of
    `gram` (groups, g, g); `i` runs outside, `j` inside. Arithmetic is float32, or float64 for float64 weights, and
    working memory a few times one block of weights, however large the layer. Raises InputError, naming the layer
    `name`, for infinities and NaN, group sizes that do not divide, and Grams of another shape.
    """
    groups = split_groups(weight, group_size, name)
    ends = group_ends(groups)
    require_finite(ends.maximum - ends.minimum, name)
    groups = groups.transpose(0, 1)
    _check_gram(gram, groups, name)
    root = gram_root(gram).to(weight.device, arithmetic_dtype(weight.dtype))
    result = ClipSearch(*(root.new_empty(*groups.shape[:2], 1) for _ in ClipSearch._fields))
    for some, rows in _blocks(groups):
        found = _search_block(groups[some, rows].to(root.dtype).contiguous(), root[some], number_format)
        for whole, part in zip(result, found, strict=True):
            whole[some, rows] = part
    return ClipSearch(*(whole.transpose(0, 1).contiguous() for whole in result))


def _check_gram(gram: Tensor, groups: Tensor, name: str) -> None:
    expected = (len(groups), groups.shape[-1], groups.shape[-1])
    if gram.shape != expected:
        raise InputError(f"{name}: Gram of shape {tuple(gram.shape)}; expected {expected}")
    if not torch.isfinite(gram).all():
        raise InputError(f"{name}: infinite or NaN inputs reached this layer during calibration")


def _blocks(groups: Tensor) -> Iterator[tuple[slice, slice]]:
    """Blocks of (groups, rows) of bounded size that hold as many rows as possible, for tall matrix products."""
    limit = CPU_CHUNK if groups.device.type == "cpu" else DEVICE_CHUNK
    count, rows, size = groups.shape
    row_step = min(rows, max(1, limit // size))
    group_step = max(1, limit // (row_step * size))
    for group, row in product(range(0, count, group_step), range(0, rows, row_step)):
        yield slice(group, group + group_step), slice(row, row + row_step)


def _search_block(block: Tensor, root: Tensor, number_format: NumberFormat) -> ClipSearch:
    """The search for a block (groups, rows, g); each group is one matrix product with its Gram root."""
    work, ends, best = Workspace(), group_ends(block), None
    for upper, lower in product(RATIOS, RATIOS):
        clip = Ends(ends.maximum * upper, ends.minimum * lower)
        error = _clip_error(block, ends, clip, root, number_format, work)
        ratios = torch.full_like(error, upper), torch.full_like(error, lower)
        candidate = ClipSearch(*clip, *ratios, error, error)
        best = candidate if best is None else _better(best, candidate)
    return best


def _better(best: ClipSearch, candidate: ClipSearch) -> ClipSearch:
    """The candidate where its error is strictly smaller, the best so far elsewhere."""
    smaller = candidate.error_after < best.error_after
    chosen = ClipSearch(*(torch.where(smaller, new, old) for new, old in zip(candidate, best, strict=True)))
    return chosen._replace(error_before=best.error_before)


def _clip_error(
    block: Tensor, ends: Ends, clip: Ends, root: Tensor, number_format: NumberFormat, work: Workspace
) -> Tensor:
    """`d^T G d = |d R|^2` of every group, (groups, rows, 1), for one pair of ends."""
    clamped = _clamp(block, clip, out=work.take("clamped", block))
    grid = number_format.grid(Ends(*(_clamp(end, clip) for end in ends)))
    change = number_format.values(clamped, grid, work).sub_(block)
    response = torch.bmm(change, root, out=work.take("response", block))
    return response.square_().sum(dim=-1, keepdim=True)


def _clamp(x: Tensor, clip: Ends, out: Tensor | None = None) -> Tensor:
    """`torch.clamp` between tensors (the maximum wins where the ends have crossed), faster when they broadcast."""
    return torch.minimum(torch.maximum(x, clip.minimum, out=out), clip.maximum, out=out)
