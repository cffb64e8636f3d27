"""What a baseline is given, what it gives back, and how it says that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bitdistiller.config import Quantization
from bitdistiller.formats import get_format


class Refusal(Exception):
    """The library cannot do what was asked: a result of its own, which the table prints as the reason."""


class Chosen(NamedTuple):
    """What a library chose for one layer."""

    codes: Tensor
    """(out, in) uint8, 0 .. 2^bits - 1."""
    scale: Tensor
    """(out, groups) in the library's precision."""
    zero_point: Tensor
    """(out, groups) int32 in the range of the codes."""
    weight: Tensor
    """(out, in): the weight that the library itself multiplies with."""


@dataclass(frozen=True)
class Task:
    """
    The model in evaluation mode, in the precision of the scales; calibration tokens (n, length) int64; names of the
    layers to quantise.
    """

    model: nn.Module
    tokenizer: Any
    tokens: Tensor
    layers: tuple[str, ...]
    quantization: Quantization
    seed: int

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return get_format(self.quantization.format).bits

    @property
    def others(self) -> list[str]:
        """Names of the linear layers that are not to be quantised."""
        linears = (name for name, module in self.model.named_modules() if isinstance(module, nn.Linear))
        return [name for name in linears if name not in self.layers]


@dataclass(frozen=True)
class Result:
    """`model` holds the tensors beside the quantised weights, some of them changed; `layer(name)` what was chosen."""

    model: nn.Module
    layer: Callable[[str], Chosen]


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the exceptions with which a library says that it does not do what it is asked into a Refusal."""
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Refusal(lines[0].strip()) from error


def versions(*packages: str) -> str:
    """The libraries with their versions, as reasons and records name them."""
    return ", ".join(f"{package} {version(package)}" for package in packages)


def affine_values(codes: Tensor, scale: Tensor, zero_point: Tensor, dtype: torch.dtype) -> Tensor:
    """`(q - z) s` per group (out, in), computed in float32 and rounded once to `dtype`."""
    groups = codes.float().view(*scale.shape, -1)
    return ((groups - zero_point.float().unsqueeze(-1)) * scale.float().unsqueeze(-1)).view(codes.shape).to(dtype)
