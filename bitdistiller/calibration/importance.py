"""Output importance: how much the loss feels each token's output of a layer (docs/method.md 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from bitdistiller.calibration.activations import ActivationWalk, Grams, batches, replaced_blocks
from bitdistiller.calibration.gram import GramAccumulator, GramOptions
from bitdistiller.layers import block_linears

LOGITS_AT_ONCE = 2**25
"""Logits that the loss holds together: 128 MiB, and about four times that with its gradient."""


def loss_gradient(walk: ActivationWalk, tokens: Tensor) -> list[Tensor]:
    """`dL/dh` of the last block's output `h`, batch by batch; L is the next-token cross-entropy summed over `tokens`.

    `walk` has gone through all blocks with these tokens (n, length). Final norm and head work on a chunk of tokens at
    a time, as the network itself calls them. Each result is (batch, length, hidden) float32 on the host.
    """
    head = walk.weights.around(walk.device, head=True)
    walk.weights.release()
    gradients = []
    for hidden, batch in zip(walk.hidden, batches(tokens), strict=True):
        inputs, targets = hidden[:, :-1].flatten(0, 1), batch[:, 1:].flatten()
        size = _chunk(walk, batch.shape[1])
        parts = [
            _chunk_gradient(walk, head, part.to(walk.device), target.to(walk.device)).to(hidden.device)
            for part, target in zip(inputs.split(size), targets.split(size), strict=True)
        ]
        gradient = torch.zeros_like(hidden)
        gradient[:, :-1] = torch.cat(parts).view(len(batch), -1, hidden.shape[-1])
        gradients.append(gradient)
    return gradients


def _chunk(walk: ActivationWalk, length: int) -> int:
    vocabulary = walk.weights.network.config.get_text_config().vocab_size
    return max(1, min(length, LOGITS_AT_ONCE // vocabulary))


def _chunk_gradient(walk: ActivationWalk, head: dict[str, Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    """The gradient for a chunk (tokens, hidden) of the last block's output."""
    output = hidden[None].requires_grad_()
    arguments = {"inputs_embeds": hidden[None].detach(), "use_cache": False}
    with torch.enable_grad(), replaced_blocks(walk.blocks, lambda *_, **__: output):
        logits = functional_call(walk.weights.network, head, kwargs=arguments).logits
        loss = functional.cross_entropy(logits[0].float(), targets, reduction="sum")
    return torch.autograd.grad(loss, output)[0][0]


def step_back(
    walk: ActivationWalk,
    index: int,
    inputs: Sequence[Tensor],
    gradients: list[Tensor],
    watched: Sequence[str],
    options: GramOptions,
) -> Grams:
    """Go back through block `index`: turn `gradients` of its output into those of its input, in place.

    `inputs` are the block's hidden states, batch by batch; the block runs again to take them apart. Returns the Gram
    of each `watched` linear with token t weighted by `h_t`, the mean over output features of `(dL/dy_t)^2`.
    """
    tensors = walk.weights.block(index, walk.device)
    walk.weights.release()
    with _weighing(walk.blocks[index], watched, options) as grams:
        for number, gradient in enumerate(gradients):
            hidden = inputs[number].to(walk.device).detach().requires_grad_()
            with torch.enable_grad():
                output = walk.run(index, tensors, hidden)
            found = torch.autograd.grad(output, hidden, gradient.to(walk.device))[0]
            gradients[number] = found.to(gradient.device)
    return grams


@contextmanager
def _weighing(block: nn.Module, names: Sequence[str], options: GramOptions) -> Iterator[Grams]:
    """Accumulate the weighted Gram of each named linear whenever the gradient of its output comes by."""
    grams: Grams = {}

    def count(name: str, x: Tensor, gradient: Tensor) -> None:
        gram = grams.setdefault(name, GramAccumulator(*options))
        gram.add(x, gradient.square().mean(dim=-1))

    def watch(name: str, x: Tensor, y: Tensor) -> None:
        y.register_hook(partial(count, name, x.detach()))

    handles = [
        linear.register_forward_hook(lambda _, args, y, name=name: watch(name, args[0], y))
        for name, linear in block_linears(block)
        if name in names
    ]
    try:
        yield grams
    finally:
        for handle in handles:
            handle.remove()
