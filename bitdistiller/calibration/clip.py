"""Asymmetric clipping (arXiv 2402.10631, 3.1): for every group the pair of ends that least disturbs the output."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from bitdistiller.calibration.candidates import Candidates
from bitdistiller.calibration.gram import gram_root
from bitdistiller.errors import InputError
from bitdistiller.formats import NumberFormat
from bitdistiller.formats.grid import group_ends, require_finite
from bitdistiller.formats.grouping import split_groups
from bitdistiller.kernels.eager import DEVICE_CHUNK, arithmetic_dtype

CPU_BLOCK = 1 << 19
"""Weights searched at once on a CPU: large enough for tall matrix products, small enough for its cache."""


class SearchOptions(NamedTuple):
    """The candidates: ratios `1 - limit i / steps`, i = 0 .. steps - 1, for each end; the defaults are the paper's.

    `refinement` rounds of coordinate descent follow, not in the paper: each halves the step and moves either end of
    every group up or down by it where that lowers the error.
    """

    steps: int = 10
    limit: float = 0.5
    refinement: int = 0

    @property
    def ratios(self) -> tuple[float, ...]:
        """The kept shares of an end that the grid tries, from 1 downwards."""
        return tuple(1 - self.limit * step / self.steps for step in range(self.steps))


PAPER = SearchOptions()


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
    weight: Tensor,
    gram: Tensor,
    number_format: NumberFormat,
    group_size: int | None,
    name: str = "weight",
    options: SearchOptions = PAPER,
) -> ClipSearch:
    """Search the grid `M (1 - i/20)`, `m (1 - j/20)`, i, j = 0..9, for the first strict minimum of `d^T G d`.

    `d` is the change of a group of `weight` (out, in) when it is clamped to the pair and quantised, `G` its matrix of
    `gram` (groups, g, g); `i` runs outside, `j` inside. `options` are other grids and what follows them. Arithmetic is
    float32, or float64 for float64 weights, and working memory a few times one block of weights, however large the
    layer. Raises InputError, naming the layer `name`, for infinities and NaN, group sizes that do not divide, and
    Grams of another shape.
    """
    groups = split_groups(weight, group_size, name, number_format.pad)
    ends = group_ends(groups)
    require_finite(ends.maximum - ends.minimum, name)
    groups = groups.transpose(0, 1)
    _check_gram(gram, groups, name)
    root = gram_root(gram).to(weight.device, arithmetic_dtype(weight.dtype))
    result = ClipSearch(*(root.new_empty(*groups.shape[:2], 1) for _ in ClipSearch._fields))
    for some, rows in _blocks(groups):
        block = groups[some, rows].to(root.dtype).contiguous()
        found = _search_block(Candidates(block, root[some], number_format), options)
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
    limit = CPU_BLOCK if groups.device.type == "cpu" else DEVICE_CHUNK
    count, rows, size = groups.shape
    row_step = min(rows, max(1, limit // size))
    group_step = max(1, limit // (row_step * size))
    for group, row in product(range(0, count, group_step), range(0, rows, row_step)):
        yield slice(group, group + group_step), slice(row, row + row_step)


class _Best(NamedTuple):
    """The ratios with the smallest error so far, and that error; all (groups, rows, 1)."""

    upper: Tensor
    lower: Tensor
    error: Tensor


def _search_block(candidates: Candidates, options: SearchOptions) -> ClipSearch:
    """The search for a block (groups, rows, g)."""
    whole = torch.ones_like(candidates.ends.maximum)
    error_before = candidates.error(whole, whole)
    best = _Best(whole, whole, error_before)
    for upper, lower in product(options.ratios, options.ratios):
        if (upper, lower) != (1, 1):
            best = _better(best, candidates, whole * upper, whole * lower)
    step = options.limit / options.steps
    for _ in range(options.refinement):
        step /= 2
        for move in (-step, step):
            best = _better(best, candidates, _moved(best.upper, move), best.lower)
        for move in (-step, step):
            best = _better(best, candidates, best.upper, _moved(best.lower, move))
    clip = candidates.clip(best.upper, best.lower)
    return ClipSearch(*clip, best.upper, best.lower, error_before, best.error)


def _better(best: _Best, candidates: Candidates, upper: Tensor, lower: Tensor) -> _Best:
    """The given ratios where their error is strictly smaller, the best so far elsewhere."""
    given = _Best(upper, lower, candidates.error(upper, lower))
    smaller = given.error < best.error
    return _Best(*(torch.where(smaller, new, old) for new, old in zip(given, best, strict=True)))


def _moved(ratio: Tensor, step: float) -> Tensor:
    """Ratios moved by a step, at most 1 and more than 0: an end is drawn in, never beyond the largest weight."""
    moved = ratio + step
    return torch.where((moved > 0) & (moved <= 1), moved, ratio)
