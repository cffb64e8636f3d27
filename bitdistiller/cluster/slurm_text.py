"""The notations in which SLURM's clients write records, times and amounts."""

from __future__ import annotations

import re

from bitdistiller.stages.deadline import parse_time_left

UNLIMITED = ("UNLIMITED", "INFINITE", "NONE", "N/A", "(null)", "")
FIELD = re.compile(r"(?:^|\s)([A-Za-z_][\w/:.-]*)=")
KIBI = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
"""Powers of 1024 behind SLURM's suffixes."""


def parse_config(text: str) -> dict[str, str]:
    """`Key = value` lines; the first of a key counts, since plugins repeat some in sections of their own."""
    config: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and key.strip():
            config.setdefault(key.strip(), value.strip())
    return config


def parse_record(line: str) -> dict[str, str]:
    """`Key=value Key=value ...` of one line; values may have blanks in them. The first of a key counts."""
    found = list(FIELD.finditer(line))
    ends = [match.start() for match in found[1:]] + [len(line)]
    pairs = [(match.group(1), line[match.end() : end].strip()) for match, end in zip(found, ends, strict=True)]
    return dict(reversed(pairs))


def parse_tres(text: str) -> dict[str, str]:
    """`cpu=8,mem=16000M,gres/gpu=2` as a dict; empty for `(null)`."""
    return {key: value for key, separator, value in (part.partition("=") for part in text.split(",")) if separator}


def parse_memory_mb(text: str) -> int | None:
    """MB in `16000M`, `1.5T` or a bare number of MB; None without a limit."""
    if text in UNLIMITED:
        return None
    number, suffix = (text[:-1], text[-1].upper()) if text[-1].isalpha() else (text, "M")
    return int(float(number) * 1024 ** (KIBI[suffix] - 2))


def parse_minutes(text: str) -> float | None:
    """Minutes in SLURM's `[days-][hours:]minutes:seconds`; None without a limit."""
    if text in UNLIMITED:
        return None
    days, dash, clock = text.partition("-")
    return parse_time_left(f"{days}-{clock}:00:00" if dash and ":" not in clock else text)
