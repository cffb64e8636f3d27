"""Token importances and weighted Gram matrices by one backward pass through the whole model, in float64."""

import torch
from torch.nn.functional import cross_entropy


def weighted_grams(model, tokens, names, group_size, stride=1):
    """`G = sum_t h_t x_t x_t^T`, (groups, g, g) float64, of every named linear; `model` is in float64."""
    inputs, outputs = {}, {}

    def watch(name, x, y):
        y.retain_grad()
        inputs[name], outputs[name] = x, y

    for name in names:
        hook = lambda _, args, y, name=name: watch(name, args[0], y)  # noqa: E731
        model.get_submodule(name).register_forward_hook(hook)
    logits = model(tokens).logits
    cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").backward()
    grams = {}
    for name in names:
        importance = (outputs[name].grad ** 2).mean(-1).flatten()
        x = inputs[name].detach().flatten(0, 1)
        grams[name] = _gram(x[::stride], importance[::stride], group_size)
    return grams


def _gram(x, importance, group_size):
    grams = []
    for part in x.split(group_size, dim=1):
        grams.append(sum(h * torch.outer(row, row) for row, h in zip(part, importance, strict=True)))
    return torch.stack(grams)
