"""Learning-rate schedules as shares of the peak: constant, cosine, linear and one-cycle, each with a warm-up."""

from __future__ import annotations

import math

ONE_CYCLE_WARMUP = 0.3
"""Share of the steps over which the one-cycle schedule rises where the recipe gives none."""


def schedule_factor(schedule: str, warmup: float, total: int, step: int) -> float:
    """
    The learning rate at `step` (from 0) of `total` as a share of its peak, in (0, 1].

    schedule: constant, cosine, linear or one-cycle (a cosine whose warm-up is 0.3 unless given); warmup: share of the
    steps over which the rate rises linearly.
    """
    rise = (warmup or ONE_CYCLE_WARMUP if schedule == "one-cycle" else warmup) * total
    if step < rise:
        return (step + 1) / (rise + 1)
    if schedule == "constant":
        return 1.0
    done = (step - rise) / max(total - rise, 1)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
