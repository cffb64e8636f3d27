"""Formats without groups, whose layers are no dense linear ones: their layout, and their masters."""

from __future__ import annotations

from typing import Any, NamedTuple

from bitdistiller.config import Quantization
from bitdistiller.export.channels import ChannelMasters, Channels
from bitdistiller.export.signs import SignMasters, Signs


class Ungrouped(NamedTuple):
    """The classes of one kind of format."""

    layout: Any
    masters: Any


def ungrouped(quantization: Quantization) -> Ungrouped | None:
    """What belongs to a format without groups; None for all others."""
    if quantization.signs:
        return Ungrouped(Signs, SignMasters)
    return Ungrouped(Channels, ChannelMasters) if quantization.bits else None
