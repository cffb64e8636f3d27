"""The clip search on stored tokens, one group at a time, as docs/method.md 2 reads."""

import torch
from reference.formats import integer, normal_float

QUANTIZERS = {
    "int2": lambda w, g: integer(w, 2, g),
    "int3": lambda w, g: integer(w, 3, g),
    "nf3": lambda w, g: normal_float(w, 3, g),
}

RATIOS = [1 - i / 20 for i in range(10)]


def search_clip(weight, x, name, group_size, ratios=RATIOS):
    """Ends (max, min), each (out, groups, 1), and the smallest mean squared error (out, groups)."""
    out, groups = weight.shape[0], weight.shape[1] // group_size
    high, low = weight.new_empty(out, groups, 1), weight.new_empty(out, groups, 1)
    errors = weight.new_empty(out, groups)
    for row in range(out):
        for group in range(groups):
            columns = slice(group * group_size, (group + 1) * group_size)
            found = _search_group(weight[row, columns], x[:, columns], name, ratios)
            high[row, group, 0], low[row, group, 0], errors[row, group] = found
    return high, low, errors


def _search_group(w, x, name, ratios):
    best, best_high, best_low = float("inf"), w.max(), w.min()
    for upper in ratios:
        for lower in ratios:
            high, low = w.max() * upper, w.min() * lower
            error = error_of(w, x, name, high, low)
            if error < best:
                best, best_high, best_low = error, high, low
    return best_high, best_low, best


def error_of(w, x, name, high, low):
    """Mean squared change of the output of one group w (g,) for inputs x (tokens, g)."""
    quantized = QUANTIZERS[name](torch.clamp(w, low, high)[None], len(w))[0]
    return (x @ quantized - x @ w).square().mean().item()


def search_clip_in_batches(weight, x, group_size, bits, rows=256):
    """INTb: the same search as the released code batches it, on tokens, some rows at a time; ends (out, groups, 1)."""
    high, low = [], []
    for part in weight.split(rows):
        w, tokens = part.reshape(len(part), 1, -1, group_size), x.reshape(1, len(x), -1, group_size)
        top, bottom = w.amax(-1, keepdim=True), w.amin(-1, keepdim=True)
        output = (tokens * w).sum(-1)
        best, best_high, best_low = torch.full_like(top, float("inf")), top, bottom
        for upper in RATIOS:
            for lower in RATIOS:
                clamped = torch.clamp(w, bottom * lower, top * upper)
                quantized = integer(clamped.flatten(1), bits, group_size).view_as(w)
                error = ((tokens * quantized).sum(-1) - output).square().mean(1).view_as(top)
                smaller = error < best
                best = torch.where(smaller, error, best)
                best_high = torch.where(smaller, top * upper, best_high)
                best_low = torch.where(smaller, bottom * lower, best_low)
        high.append(best_high.squeeze(1))
        low.append(best_low.squeeze(1))
    return torch.cat(high), torch.cat(low)
