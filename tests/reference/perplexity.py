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
