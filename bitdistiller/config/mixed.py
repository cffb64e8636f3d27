"""Formats of LLM-QAT, which are bits of weights, activations and KV cache: `4-8-4`, as in its table."""

from __future__ import annotations

import re
from typing import NamedTuple

OFF = 32
"""From this many bits on nothing is quantised; 16 bits are."""
SHAPE = re.compile(r"(\d+)-(\d+)-(\d+)")
ACCEPTED = {
    "weights": (range(1, 9), "1 to 8"),
    "activations": (range(3, 17), "3 to 16"),
    "cache": (range(2, 17), "2 to 16"),
}


class MixedBits(NamedTuple):
    """Bits of weights, activations and KV cache; 32 leaves activations or cache as they are, 16 quantises them."""

    weights: int
    activations: int
    cache: int


def check_channel_integers(bits: MixedBits) -> None:
    """Raises ValueError for bits that compressed-tensors' integers with a scale a channel do not hold."""
    held = bits.weights in range(3, 9) and bits.activations in (8, 16, OFF) and bits.cache in (16, OFF)
    if not held:
        raise ValueError(
            f"layout compressed-tensors does not hold {'-'.join(map(str, bits))}; accepted: weights of 3 to 8 bits, "
            f"activations of 8, 16 or {OFF}, a KV cache of 16 or {OFF}"
        )


def mixed_bits(number_format: str) -> MixedBits | None:
    """The bits that a format's name says; None for other formats. Raises ValueError for bits that there are not."""
    match = SHAPE.fullmatch(number_format)
    if match is None:
        return None
    bits = MixedBits(*map(int, match.groups()))
    for what, (accepted, text) in ACCEPTED.items():
        found = getattr(bits, what)
        if found not in accepted and not (found == OFF and what != "weights"):
            more = "" if what == "weights" else f", or {OFF} for none"
            raise ValueError(f"{number_format}: {found} bits of {what}; accepted: {text}{more}")
    return bits


def format_bits(name: str) -> int:
    """Bits per code of a number format, which every format's name ends with (int2, nf3); of 4-8-4 those of weights."""
    mixed = mixed_bits(name)
    if mixed is not None:
        return mixed.weights
    match = re.search(r"\d+$", name)
    if match is None:
        raise ValueError(f"format {name!r} does not end with its bits")
    return int(match.group())
