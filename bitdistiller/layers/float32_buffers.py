"""Modules for inference whose numbers stay in float32, whatever dtype a model is converted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

from torch import nn


class Float32Buffers(nn.Module):
    """`model.to(bfloat16)` moves the buffers named in `FLOAT32`, and does not round them."""

    FLOAT32: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        before = {name: getattr(self, name) for name in self.FLOAT32}
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            setattr(self, name, tensor.to(getattr(self, name).device))
        return self
