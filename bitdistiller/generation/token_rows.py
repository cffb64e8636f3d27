"""What an integer cache is made of: tensors that grow by tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bitdistiller.formats import largest_level, pack_codes, symmetric_codes, symmetric_values, unpack_codes
from bitdistiller.formats.packing import BYTE


class TokenRows:
    """Tensors (batch or 1, tokens, ...) that grow by tokens, all alike."""

    def __init__(self) -> None:
        self.tensors: tuple[Tensor, ...] = ()

    @property
    def length(self) -> int:
        """Tokens."""
        return self.tensors[0].shape[1] if self.tensors else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def extend(self, *new: Tensor) -> None:
        """Put the tensors of new tokens behind the others."""
        self.tensors = tuple(map(_joined, self.tensors, new)) if self.tensors else new

    def change(self, how: Callable[[Tensor], Tensor]) -> None:
        """Apply `how` to every tensor."""
        self.tensors = tuple(map(how, self.tensors))

    def clear(self) -> None:
        """Forget all tokens."""
        self.tensors = ()


class TokenCodes(TokenRows):
    """
    Outputs of one layer for the tokens so far: codes (batch, tokens, bytes) and scales (batch, tokens, 1).

    Up to 8 bits are packed densely (uint8); more take int16.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.width, self.dtype = bits, 0, torch.float32
        self.zero = largest_level(bits)

    def append(self, output: Tensor) -> None:
        """Take a layer's output (batch, tokens, features) before it is quantised."""
        codes, scales = symmetric_codes(output, self.bits)
        if self.bits <= BYTE:
            codes = pack_codes((codes + self.zero).to(torch.uint8), self.bits)
        self.width, self.dtype = output.shape[-1], output.dtype
        self.extend(codes, scales)

    def values(self) -> Tensor:
        """The quantised outputs (batch, tokens, features) of all tokens, in the dtype they had."""
        codes, scales = self.tensors
        if self.bits <= BYTE:
            codes = unpack_codes(codes, self.bits, self.width).to(torch.int16) - self.zero
        return symmetric_values(codes, scales).to(self.dtype)


class Rotations(TokenRows):
    """Rotary embeddings of the tokens so far, cos and sin (batch or 1, tokens, dimension), once for all layers."""

    latest: tuple[Tensor, Tensor] | None = None

    def append(self, new: tuple[Tensor, Tensor]) -> None:
        """Take what a forward pass gives each of its layers; the first call for the same objects counts."""
        if self.latest is not new:
            self.latest = new
            self.extend(*new)

    def change_rows(self, how: Callable[[Tensor], Tensor]) -> None:
        """Apply `how` to what differs from sequence to sequence."""
        if self.tensors and len(self.tensors[0]) > 1:
            self.change(how)


def _joined(before: Tensor, new: Tensor) -> Tensor:
    """One behind the other; where one of them has a single row for all sequences, it is repeated."""
    rows = max(len(before), len(new))
    return torch.cat([tensor.expand(rows, -1, -1) for tensor in (before, new)], dim=1)
