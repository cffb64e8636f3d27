"""Statistics of a weight as docs/method.md 8 reads, on Python lists of rows."""

import math


def groups_of(rows, size):
    return [row[start : start + size] for row in rows for start in range(0, len(row), size)]


def moments(rows):
    """Mean, standard deviation, minimum, maximum, kurtosis."""
    values = [value for row in rows for value in row]
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    fourth = math.fsum((value - mean) ** 4 for value in values) / len(values)
    kurtosis = fourth / variance**2 if min(values) < max(values) else None
    return mean, math.sqrt(variance), min(values), max(values), kurtosis


def peak(rows, size):
    ratios = [
        max(map(abs, group)) / math.sqrt(math.fsum(value**2 for value in group) / len(group))
        for group in groups_of(rows, size)
        if any(group)
    ]
    return math.fsum(ratios) / len(ratios) if ratios else None


def one_sign_share(rows, size):
    groups = groups_of(rows, size)
    return sum(all(v >= 0 for v in group) or all(v <= 0 for v in group) for group in groups) / len(groups)


def squared_error(quantized, rows):
    pairs = [pair for ours, theirs in zip(quantized, rows, strict=True) for pair in zip(ours, theirs, strict=True)]
    return math.fsum((a - b) ** 2 for a, b in pairs), math.fsum(b**2 for _, b in pairs)


def code_shares(rows, bits):
    values = [value for row in rows for value in row]
    return [values.count(code) / len(values) for code in range(2**bits)]


def entropy(shares):
    return sum(-share * math.log2(share) for share in shares if share > 0)


def kept_shares(rows, maxima, minima, size):
    """Shares of the maxima and of the minima, group by group, in the order of `groups_of`."""
    high = [max(group) for group in groups_of(rows, size)]
    low = [min(group) for group in groups_of(rows, size)]
    return tuple(
        [clipped / end if end else 1.0 for clipped, end in zip(ends, full, strict=True)]
        for ends, full in ((maxima, high), (minima, low))
    )


def band(shares):
    """The smallest share that 10 % (90 %) of them do not exceed."""
    return [
        min(bound for bound in shares if sum(share <= bound for share in shares) >= quantile * len(shares) - 1e-9)
        for quantile in (0.1, 0.9)
    ]
