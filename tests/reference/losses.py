"""The losses of docs/method.md 4 as loops over positions and tokens, in Python's floats."""

from __future__ import annotations

import math

IGNORED = -100


def softmax(logits):
    """Probabilities of one position."""
    largest = max(logits)
    weights = [math.exp(value - largest) for value in logits]
    return [weight / sum(weights) for weight in weights]


def kl(p, q):
    """KL(p || q) of two distributions."""
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0.0)


def _at_unmasked_positions(student, teacher, labels, reduction, term):
    """`term(student's, teacher's distribution)` where the label of the same position counts."""
    terms = [
        term(softmax(student[b][t]), softmax(teacher[b][t]))
        for b, row in enumerate(labels)
        for t, label in enumerate(row)
        if label != IGNORED
    ]
    return sum(terms) / (len(labels) if reduction == "sequence_sum" else max(len(terms), 1))


def cakld(student, teacher, labels, gamma, reduction):
    """gamma KL(S || T) + (1 - gamma) KL(T || S)."""

    def term(s, t):
        return gamma * kl(s, t) + (1 - gamma) * kl(t, s)

    return _at_unmasked_positions(student, teacher, labels, reduction, term)


def forward(student, teacher, labels, gamma, reduction):
    """KL(T || S)."""
    return cakld(student, teacher, labels, 0.0, reduction)


def reverse(student, teacher, labels, gamma, reduction):
    """KL(S || T)."""
    return cakld(student, teacher, labels, 1.0, reduction)


def jsd(student, teacher, labels, gamma, reduction):
    """c = beta T + (1 - beta) S; beta KL(T || c) + (1 - beta) KL(S || c); gamma is beta."""

    def term(s, t):
        centre = [gamma * b + (1 - gamma) * a for a, b in zip(s, t, strict=True)]
        return gamma * kl(t, centre) + (1 - gamma) * kl(s, centre)

    return _at_unmasked_positions(student, teacher, labels, reduction, term)


def ce(student, teacher, labels, gamma, reduction):
    """Cross-entropy of the label at t + 1 with the logits at t."""
    terms = [
        -math.log(softmax(student[b][t])[row[t + 1]])
        for b, row in enumerate(labels)
        for t in range(len(row) - 1)
        if row[t + 1] != IGNORED
    ]
    return sum(terms) / (len(labels) if reduction == "sequence_sum" else max(len(terms), 1))


def tlsd(student, teacher, labels, gamma, reduction):
    """Soft cross-entropy weighted by softmax over the sequence of (teacher's label cross-entropy / 10), summed."""
    total = 0.0
    for b, row in enumerate(labels):
        counted = [t for t in range(len(row) - 1) if row[t + 1] != IGNORED]
        hardness = [-math.log(softmax(teacher[b][t])[row[t + 1]]) / 10 for t in counted]
        for t, weight in zip(counted, softmax(hardness) if counted else [], strict=True):
            s, p = softmax(student[b][t]), softmax(teacher[b][t])
            total -= weight * sum(a * math.log(c) for a, c in zip(p, s, strict=True))
    return total


def label_confidence(teacher, labels, completion):
    """The paper's gamma: mean probability of the label at t + 1 given by the logits at t, over completion labels."""
    found = [
        softmax(teacher[b][t])[row[t + 1]]
        for b, row in enumerate(labels)
        for t in range(len(row) - 1)
        if completion[b][t + 1] and row[t + 1] != IGNORED
    ]
    return sum(found) / len(found)


def top_confidence(teacher):
    """The reference's gamma of one batch: mean largest probability over all positions."""
    found = [max(softmax(position)) for sequence in teacher for position in sequence]
    return sum(found) / len(found)


def at_position(name, s, t, target, gamma):
    """The loss of one position from the student's and the teacher's distribution; `target` is the next label."""
    if name == "ce":
        return -math.log(s[target])
    if name == "tlsd":
        return -sum(a * math.log(b) for a, b in zip(t, s, strict=True))
    if name == "jsd":
        centre = [gamma * b + (1 - gamma) * a for a, b in zip(s, t, strict=True)]
        return gamma * kl(t, centre) + (1 - gamma) * kl(s, centre)
    share = {"cakld": gamma, "forward": 0.0, "reverse": 1.0}[name]
    return share * kl(s, t) + (1 - share) * kl(t, s)


def coarse(distribution, ids):
    """The chosen tokens and the sum of all others."""
    return [distribution[i] for i in ids] + [sum(p for i, p in enumerate(distribution) if i not in ids)]


def head_logits(hidden, weight, bias, scale, softcap, vocabulary):
    """softcap tanh(scale (hidden weight^T + bias) / softcap) of one position, over the first `vocabulary` tokens."""
    found = []
    for token in range(vocabulary):
        product = sum(a * b for a, b in zip(hidden, weight[token], strict=True)) + (bias[token] if bias else 0.0)
        found.append(softcap * math.tanh(scale * product / softcap) if softcap else scale * product)
    return found
