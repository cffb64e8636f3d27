"""Paired bootstrap and sign test as their definitions say, in plain loops."""

import math

import numpy as np


def interval(differences, weights, resamples, confidence, seed):
    """Percentiles of resampled weighted means; items by numpy's Generator, one resample of n after the other."""
    random, n = np.random.default_rng(seed), len(differences)
    means = []
    for _ in range(resamples):
        drawn = [int(k) for k in random.integers(n, size=n)]
        total = sum(weights[k] for k in drawn)
        means.append(sum(weights[k] * differences[k] for k in drawn) / total)
    means.sort()

    def quantile(share):
        place = share * (len(means) - 1)
        below = math.floor(place)
        above = min(below + 1, len(means) - 1)
        return means[below] + (place - below) * (means[above] - means[below])

    tail = (1 - confidence) / 2
    return quantile(tail), quantile(1 - tail)


def sign_test(wins, losses):
    """Probability under a fair coin of a split at least as uneven."""
    n = wins + losses
    splits = [k for k in range(n + 1) if abs(2 * k - n) >= abs(wins - losses)]
    return sum(math.comb(n, k) for k in splits) / 2**n
