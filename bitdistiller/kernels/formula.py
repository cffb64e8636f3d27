"""What a number format hands to the kernels: its formula as pure functions of groups of weights."""

from collections.abc import Hashable
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class TritonKernels(NamedTuple):
    """A formula's two Triton kernels and the constants they are specialised for; see kernels/triton/launch.py."""

    forward: Any
    backward: Any
    constants: dict[str, Any]
    scales: int
    """Scales per group."""


class Formula(Hashable, Protocol):
    """A fake quantiser on groups (n, group_size) in arithmetic dtype (float32 or float64); equal ones hash alike."""

    def forward_formula(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised values (n, group_size), and scales (n, scales) that are NaN or infinite where a weight is."""

    def backward_formula(self, groups: Tensor, upstream: Tensor, scale_grad: bool) -> Tensor:
        """The gradient of every weight (n, group_size)."""

    def triton_kernels(self) -> TritonKernels | None:
        """The same formula for Triton, or None where there is none."""
