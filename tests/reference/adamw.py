"""AdamW as algorithm 2 of Loshchilov and Hutter (2019, arXiv 1711.05101) writes it, one number at a time."""

from __future__ import annotations

import math


def adamw(start, gradients, rates, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0):
    """
    The weights after each step, as lists of floats.

    start: floats; gradients: one list of floats per step; rates: the learning rate of each step.
    """
    weights, first, second = list(start), [0.0] * len(start), [0.0] * len(start)
    path = []
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        for i, g in enumerate(gradient):
            first[i] = beta1 * first[i] + (1 - beta1) * g
            second[i] = beta2 * second[i] + (1 - beta2) * g * g
            mean, square = first[i] / (1 - beta1**step), second[i] / (1 - beta2**step)
            weights[i] = weights[i] - rate * mean / (math.sqrt(square) + epsilon) - rate * weight_decay * weights[i]
        path.append(list(weights))
    return path
