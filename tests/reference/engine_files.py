"""What GPTQ and GGUF files hold, read as their engines define them: one value at a time."""

import struct


def gptq_codes(words, bits, count):
    """Codes of one row from its 32-bit words (integers of either sign), the first in the lowest bits."""
    stream = 0
    for k, word in enumerate(words):
        stream |= (word & 0xFFFFFFFF) << (32 * k)
    return [stream >> (bits * i) & (2**bits - 1) for i in range(count)]


def gptq_weight(qweight, qzeros, scales, g_idx, bits):
    """Rows (out) of the weight: `(code - zero) * scale`, zero points as they are (version 2)."""
    columns, rows = len(g_idx), len(qweight[0])
    zeros = [gptq_codes(group, bits, rows) for group in qzeros]
    weight = []
    for row in range(rows):
        codes = gptq_codes([line[row] for line in qweight], bits, columns)
        weight.append([(codes[i] - zeros[g_idx[i]][row]) * scales[g_idx[i]][row] for i in range(columns)])
    return weight


def q4_1(block):
    """32 values of a Q4_1 block: two float16, then 16 bytes whose low halves come first."""
    d, m = struct.unpack("<ee", block[:4])
    codes = [byte & 15 for byte in block[4:]] + [byte >> 4 for byte in block[4:]]
    return [code * d + m for code in codes]


def q2_0(block):
    """64 values of a Q2_0 block: a float16, then four codes a byte, each one more than its multiple of the scale."""
    (d,) = struct.unpack("<e", block[:2])
    return [((block[2 + i // 4] >> 2 * (i % 4) & 3) - 1) * d for i in range(64)]


class GGUF:
    """Keys and tensors of a GGUF file: `keys[name]`, `tensors[name]` = (type, shape, bytes from its start on)."""

    SIMPLE = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, content):
        self.content, self.place = content, 0
        assert self.take("4sI") == (b"GGUF", 3)
        tensors, keys = self.take("QQ")
        self.keys = {}
        for _ in range(keys):
            name = self.text()
            self.keys[name] = self.value(*self.take("I"))
        found = []
        for _ in range(tensors):
            name = self.text()
            (dimensions,) = self.take("I")
            shape = self.take("Q" * dimensions)
            found.append((name, tuple(reversed(shape)), *self.take("IQ")))
        start = (self.place + 31) // 32 * 32
        self.tensors = {name: (kind, shape, content[start + offset :]) for name, shape, kind, offset in found}

    def take(self, codes):
        values = struct.unpack_from("<" + codes, self.content, self.place)
        self.place += struct.calcsize("<" + codes)
        return values

    def text(self):
        (length,) = self.take("Q")
        self.place += length
        return self.content[self.place - length : self.place].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.take("IQ")
            return [self.value(inner) for _ in range(count)]
        return self.take(self.SIMPLE[kind])[0]

    def blocks(self, name, block_bytes, block_values, decode):
        """Rows of a tensor of blocks."""
        _, (rows, columns), data = self.tensors[name]
        per_row = columns // block_values
        return [
            [
                value
                for b in range(per_row)
                for value in decode(data[(row * per_row + b) * block_bytes : (row * per_row + b + 1) * block_bytes])
            ]
            for row in range(rows)
        ]
