"""OneBit and LLM-QAT as their formulas say, element by element and without autograd functions."""

import math

import numpy as np
import torch


def onebit_forward(x, weight, weight_scale, input_factor):
    """y (tokens, out) of x (tokens, in), all float64, as loops over tokens and output features."""
    rows = []
    for token in x.tolist():
        z = []
        for signs, scale in zip(weight.sign().tolist(), weight_scale.tolist(), strict=True):
            product = sum(s * v * f for s, v, f in zip(signs, token, input_factor.tolist(), strict=True))
            z.append(product * scale)
        mean = sum(z) / len(z)
        variance = sum((value - mean) ** 2 for value in z) / len(z)
        rows.append([(value - mean) / math.sqrt(variance + 1e-5) for value in z])
    return torch.tensor(rows, dtype=torch.float64)


def rank_one(magnitude):
    """The best rank-1 approximation of a matrix, by its singular values."""
    left, values, right = np.linalg.svd(magnitude, full_matrices=False)
    return values[0] * np.outer(left[:, 0], right[0])


def symmetric(row, bits):
    """Quantised values of one row (list of float)."""
    scale = (2 ** (bits - 1) - 1) / (max(map(abs, row)) + 1e-6)
    return [round(value * scale) / (scale + 1e-6) for value in row]


def symmetric_integers(row, bits):
    """The integers behind `symmetric`."""
    scale = (2 ** (bits - 1) - 1) / (max(map(abs, row)) + 1e-6)
    return [round(value * scale) for value in row]


def asymmetric(row, bits):
    """Quantised values of one row (list of float)."""
    low, steps = min(row), 2**bits - 1
    span = max(row) - low + 1e-8
    return [round((value - low) / span * steps) / steps * span + low for value in row]


def two_bits(row):
    """The four levels of a row's weights (list of float)."""
    scale = 2 * sum(map(abs, row)) / len(row)
    return [scale * (round(min(max(value / scale, -0.99), 0.99) * 2 - 0.5) + 0.5) / 2 for value in row]


def batch_kl(student, teacher):
    """`sum_{b, t, v} p (log p - log q) / B` of logits (batch, sequence, vocabulary), as loops in Python floats."""
    total = 0.0
    for s, t in zip(student.flatten(0, 1).tolist(), teacher.flatten(0, 1).tolist(), strict=True):
        p, q = ([math.exp(v - max(row)) for v in row] for row in (t, s))
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return total / len(student)


def hidden_loss(student, teacher):
    """Over all entries but the last: the mean over tokens of `2 - 2 cos`, the squared distance of unit vectors."""
    total = 0.0
    for s, t in list(zip(student, teacher, strict=True))[:-1]:
        terms = []
        for a, b in zip(s.flatten(0, 1).tolist(), t.flatten(0, 1).tolist(), strict=True):
            lengths = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
            terms.append(2 - 2 * sum(x * y for x, y in zip(a, b, strict=True)) / lengths)
        total += sum(terms) / len(terms)
    return total
