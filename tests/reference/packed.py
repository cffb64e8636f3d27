"""Products with packed weights, one code at a time."""


def lanes(codes, bits):
    """Signed 32-bit words of one row of codes: word l of a block holds those of columns l, 16 + l, 32 + l, ..."""
    words = 3 if bits == 3 else 1
    block = 16 * 32 * words // bits
    codes = list(codes) + [0] * (-len(codes) % block)
    row = []
    for start in range(0, len(codes), block):
        streams = [0] * 16
        for i, code in enumerate(codes[start : start + block]):
            streams[i % 16] |= code << (bits * (i // 16))
        for word in range(words):
            for stream in streams:
                value = stream >> (32 * word) & 0xFFFFFFFF
                row.append(value - 2**32 if value >= 2**31 else value)
    return row


def product(x, codes, scale, zero_point, levels, group_size):
    """`sum_k x_k (level[q_k] - z) s` of a row; two scales: of levels below zero, and of the others."""
    total = 0.0
    for k, code in enumerate(codes):
        group = k // group_size
        pair = scale[group] if isinstance(scale[group], (list, tuple)) else [scale[group]] * 2
        level = levels[code]
        zero = zero_point[group] if zero_point is not None else 0
        total += x[k] * (level - zero) * pair[0 if level < 0 else 1]
    return total
