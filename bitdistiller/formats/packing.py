"""Dense bit packing: code k of a row occupies bits k * bits .. (k + 1) * bits - 1 of the row's little-endian stream."""

import torch
from torch import Tensor

from bitdistiller.errors import InputError

BYTE = 8
WORD_CODES = 8


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack codes (..., n) uint8 into (..., ceil(n * bits / 8)) uint8, each row padded with zero bits to whole bytes.

    Raises InputError when `bits` is outside 1..8 or a code does not fit.
    """
    _check_bits(bits)
    if codes.numel() and int(codes.max()) >> bits:
        raise InputError(f"codes: {int(codes.max())} does not fit {bits} bits")
    length = codes.shape[-1]
    padded = torch.nn.functional.pad(codes.to(torch.uint8), (0, -length % WORD_CODES))
    padded = padded.unflatten(-1, (-1, WORD_CODES))
    words = torch.zeros(padded.shape[:-1], dtype=torch.int64, device=codes.device)
    for k in range(WORD_CODES):
        words |= padded[..., k].to(torch.int64) << (k * bits)
    stream = torch.stack([(words >> (8 * byte)).bitwise_and_(0xFF).to(torch.uint8) for byte in range(bits)], dim=-1)
    return stream.flatten(-2)[..., : packed_bytes(length, bits)].contiguous()


def unpack_codes(packed: Tensor, bits: int, length: int) -> Tensor:
    """The codes (..., length) uint8 that `pack_codes` packed; InputError when the rows have another size."""
    _check_bits(bits)
    size = packed_bytes(length, bits)
    if packed.shape[-1] != size:
        raise InputError(f"packed codes: rows of {packed.shape[-1]} bytes; {length} codes of {bits} bits take {size}")
    if BYTE % bits == 0:  # no code lies in two bytes
        shifts = torch.arange(0, BYTE, bits, dtype=torch.uint8, device=packed.device)
        return (packed.unsqueeze(-1) >> shifts).bitwise_and_(2**bits - 1).flatten(-2)[..., :length].contiguous()
    stream = torch.nn.functional.pad(packed, (0, -size % bits)).unflatten(-1, (-1, bits))
    words = torch.zeros(stream.shape[:-1], dtype=torch.int64, device=packed.device)
    for byte in range(bits):
        words |= stream[..., byte].to(torch.int64) << (8 * byte)
    mask = 2**bits - 1
    codes = [(words >> (k * bits)).bitwise_and_(mask).to(torch.uint8) for k in range(WORD_CODES)]
    return torch.stack(codes, dim=-1).flatten(-2)[..., :length].contiguous()


def packed_bytes(length: int, bits: int) -> int:
    """Bytes of one packed row of `length` codes."""
    return -(-length * bits // 8)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise InputError(f"bits: {bits}; accepted: 1 to 8")
