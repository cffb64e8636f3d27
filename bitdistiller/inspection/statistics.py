"""What can be said of one weight: pure functions, in float64 over a few rows at a time (docs/method.md 8)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bitdistiller.formats.grouping import split_groups

CHUNK = 1 << 16
"""Elements that are held in float64 at a time; they fit the processor's cache."""
BAND = (0.1, 0.9)
"""Quantiles between which a band of groups lies."""


class Moments(NamedTuple):
    """Of all elements of a weight; `kurtosis` is 3 for a normal distribution, None for a constant weight."""

    mean: float
    std: float
    minimum: float
    maximum: float
    kurtosis: float | None


class Kept(NamedTuple):
    """Shares of an end that clipping kept: their mean over groups and the ends of the 10-90 % band."""

    mean: float
    low: float
    high: float


def moments(weight: Tensor) -> Moments:
    """Mean, standard deviation (of the population), extremes and kurtosis of a weight (out, in)."""
    mean = sum(float(block.sum()) for block in _blocks(weight)) / weight.numel()
    second = fourth = 0.0
    for block in _blocks(weight):
        squares = (block - mean).square_()
        second += float(squares.sum())
        fourth += float(squares.square_().sum())
    minimum, maximum = (float(end) for end in torch.aminmax(weight))
    variance = second / weight.numel()
    kurtosis = fourth / weight.numel() / variance**2 if minimum < maximum else None
    return Moments(mean, math.sqrt(variance), minimum, maximum, kurtosis)


def peak(weight: Tensor, group_size: int) -> float | None:
    """Mean over groups of `max|w| / rms(w)`; groups of zeros are left out, None when there is no other.

    A last group that is not full counts with the weights it has.
    """
    total, count = 0.0, 0
    for block in _blocks(weight):
        groups = split_groups(block, group_size, pad=True)
        sizes = torch.full(groups.shape[1:2], group_size, dtype=groups.dtype)
        sizes[-1] -= groups.shape[1] * group_size - weight.shape[1]
        rms = (groups.square().sum(-1) / sizes).sqrt()
        ratios = (groups.abs().amax(-1) / rms)[rms > 0]
        total, count = total + float(ratios.sum()), count + ratios.numel()
    return total / count if count else None


def one_sign_share(weight: Tensor, group_size: int) -> float:
    """Share of groups without a weight below zero, or without one above."""
    groups = split_groups(weight, group_size, pad=True)
    low, high = torch.aminmax(groups, dim=-1)
    return float(((low >= 0) | (high <= 0)).double().mean())


def squared_error(quantized: Tensor, weight: Tensor) -> tuple[float, float]:
    """`||w_hat - w||^2` and `||w||^2` of two weights of one shape."""
    pairs = zip(_blocks(quantized), _blocks(weight), strict=True)
    parts = [(float((ours - theirs).square_().sum()), float(theirs.square().sum())) for ours, theirs in pairs]
    error, energy = (sum(column) for column in zip(*parts, strict=True))
    return error, energy


def code_shares(codes: Tensor, bits: int) -> tuple[float, ...]:
    """Share of the weights that have each of the `2^bits` codes."""
    counts = torch.bincount(codes.flatten(), minlength=2**bits)
    return tuple((counts.double() / codes.numel()).tolist())


def entropy(shares: tuple[float, ...]) -> float:
    """Entropy of the codes in bits: what an ideal entropy code would need for one of them."""
    return -sum(share * math.log2(share) for share in shares if share) + 0.0


def kept_shares(weight: Tensor, maximum: Tensor, minimum: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """`M' / M` and `m' / m` of every group (out, groups), for clip ranges (out, groups, 1); 1 where an end is 0."""
    groups = split_groups(weight, group_size, pad=True)
    low, high = torch.aminmax(groups, dim=-1)
    return tuple(
        torch.where(end == 0, 1.0, clipped.squeeze(-1).double() / end.double())
        for end, clipped in ((high, maximum), (low, minimum))
    )


def summarise(shares: Tensor) -> Kept:
    """The mean and the band of shares; a quantile is the smallest share that so many groups do not exceed."""
    values = shares.double().numpy().ravel()
    low, high = np.quantile(values, BAND, method="inverted_cdf")
    return Kept(float(values.mean()), float(low), float(high))


def summarise_histogram(mean: float, counts: list[int]) -> Kept:
    """The same from a histogram whose entry i counts the groups that kept `1 - i/20`; the mean is known."""
    reached, wanted = 0, [quantile * sum(counts) for quantile in BAND]
    ends: list[float] = []
    for index in reversed(range(len(counts))):
        reached += counts[index]
        while len(ends) < len(wanted) and counts[index] and reached >= wanted[len(ends)]:
            ends.append(1 - index / 20)
    return Kept(mean, *ends)


def _blocks(weight: Tensor) -> Iterator[Tensor]:
    rows = max(1, CHUNK // weight.shape[1])
    return (weight[start : start + rows].double() for start in range(0, len(weight), rows))
