"""The clip search on stored tokens, one group at a time, as docs/method.md 2 reads."""

import torch
from reference.formats import integer, normal_float_3

QUANTIZERS = {
    "int2": lambda w, g: integer(w, 2, g),
    "int3": lambda w, g: integer(w, 3, g),
    "nf3": normal_float_3,
}


def search_clip(weight, x, name, group_size):
    """Ends (max, min), each (out, groups, 1), and the smallest mean squared error (out, groups)."""
    out, groups = weight.shape[0], weight.shape[1] // group_size
    high, low = weight.new_empty(out, groups, 1), weight.new_empty(out, groups, 1)
    errors = weight.new_empty(out, groups)
    for row in range(out):
        for group in range(groups):
            columns = slice(group * group_size, (group + 1) * group_size)
            found = _search_group(weight[row, columns], x[:, columns], name)
            high[row, group, 0], low[row, group, 0], errors[row, group] = found
    return high, low, errors


def _search_group(w, x, name):
    best, best_high, best_low = float("inf"), w.max(), w.min()
    for i in range(10):
        for j in range(10):
            high, low = w.max() * (1 - i / 20), w.min() * (1 - j / 20)
            quantized = QUANTIZERS[name](torch.clamp(w, low, high)[None], len(w))[0]
            error = (x @ quantized - x @ w).square().mean().item()
            if error < best:
                best, best_high, best_low = error, high, low
    return best_high, best_low, best
