"""Dense bit packing, one bit at a time: the specification of both packed layouts."""

import math


def stream(values, bits):
    """The little-endian bits of unsigned values, one after the other."""
    return [value >> bit & 1 for value in values for bit in range(bits)]


def words(values, bits, word_bits):
    """Unsigned words of `word_bits` bits that hold the stream of one row, the last one padded with zeros."""
    row = stream(values, bits)
    row += [0] * (math.ceil(len(row) / word_bits) * word_bits - len(row))
    return [sum(bit << k for k, bit in enumerate(row[i : i + word_bits])) for i in range(0, len(row), word_bits)]
