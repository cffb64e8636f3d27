"""Perplexity as docs/method.md 5 defines it, one chunk and one token at a time."""

import math

import torch


@torch.no_grad()
def naive_perplexity(model, token_ids, length):
    """
    exp(sum over chunks of mean loss * length / (chunks * length)) of a list of token ids.

    The mean is over the length - 1 predicted positions of a chunk; tokens after the last whole chunk do not count.
    """
    chunks = len(token_ids) // length
    total = 0.0
    for index in range(chunks):
        chunk = token_ids[index * length : (index + 1) * length]
        log_probabilities = torch.log_softmax(model(torch.tensor([chunk])).logits[0].double(), dim=-1)
        losses = [-log_probabilities[t, chunk[t + 1]].item() for t in range(length - 1)]
        total += sum(losses) / (length - 1) * length
    return math.exp(total / (chunks * length))


@torch.no_grad()
def naive_sliding_perplexity(model, token_ids, window, stride):
    """
    exp(sum of losses / number of losses): every token after the first, seen from the first window that holds it.

    Windows begin at 0, stride, 2 stride, ... and the last is the first that reaches the end.
    """
    losses, scored, begin = [], 1, 0
    while scored < len(token_ids):
        part = token_ids[begin : begin + window]
        log_probabilities = torch.log_softmax(model(torch.tensor([part])).logits[0].double(), dim=-1)
        for t in range(max(scored, begin + 1), begin + len(part)):
            losses.append(-log_probabilities[t - begin - 1, token_ids[t]].item())
        scored, begin = begin + len(part), begin + stride
    return math.exp(sum(losses) / len(losses))


@torch.no_grad()
def naive_agreement(model, reference, token_ids, length):
    """Mean KL(reference || model) in nats and share of equal first choices, over the predicted positions of chunks."""
    divergences, equal = [], []
    for begin in range(0, len(token_ids) - length + 1, length):
        chunk = torch.tensor([token_ids[begin : begin + length]])
        p, q = (torch.softmax(m(chunk).logits[0].double(), dim=-1) for m in (reference, model))
        for t in range(length - 1):
            divergences.append(sum(a * math.log(a / b) for a, b in zip(p[t].tolist(), q[t].tolist(), strict=True)))
            equal.append(float(p[t].argmax() == q[t].argmax()))
    return sum(divergences) / len(divergences), sum(equal) / len(equal)
