"""pass@k by its definition: the share of all choices of k programs that hold one that passed."""

import itertools


def pass_at_k(outcomes, k):
    """outcomes: list of bool, one per program of a problem."""
    choices = list(itertools.combinations(outcomes, k))
    return sum(any(choice) for choice in choices) / len(choices)
