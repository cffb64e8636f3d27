"""Our number less the paper's, and how far chance alone may carry it."""

from __future__ import annotations

import math

from bitdistiller.reporting.published import Published, PublishedNumber


def difference(
    value: float | None, error: float | None, theirs: PublishedNumber | None, n: int | None, quantity: str
) -> tuple[float | None, float | None]:
    """
    Difference and its standard error, in the unit of our value; None where there is none.

    error: our standard error; n: items the published number averages over. A published fraction of known n adds its
    binomial variance, p (1 - p) / n; what is not known of the paper's sampling is left out.
    """
    if value is None or theirs is None or not (math.isfinite(value) and math.isfinite(theirs.value)):
        return None, None
    published = theirs.value / 100 if quantity == "fraction" else theirs.value
    if error is None:
        return value - published, None
    known = quantity == "fraction" and n is not None and 0 <= published <= 1
    variance = published * (1 - published) / n if known and n else 0.0
    return value - published, math.sqrt(error**2 + variance)


def published_items(published: Published | None, metric: str | None) -> int | None:
    """The n of a published metric, where its protocol says one."""
    if published is None or metric is None:
        return None
    found = [int(entry.value) for entry in published.protocol(metric) if entry.key == "n"]
    return found[0] if found else None
