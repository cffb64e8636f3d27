"""Full-precision activations, taken through the decoder one block at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bitdistiller.calibration.gram import GramAccumulator, GramOptions
from bitdistiller.calibration.weights import ModelWeights, Tensors
from bitdistiller.layers import block_linears

TOKENS_AT_ONCE = 4096
"""Tokens that go through a block together. At LLaMA-7B's shapes the device then holds 0.8 GB of weights, 0.7 GB of
feed-forward activations and, where the attention kernel stores its matrices, 1.6 GB of these: 3.3 GB with the rest.
"""

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a block is called with besides the hidden states: masks, positions, switches."""

Grams = dict[str, GramAccumulator]
WHOLE_ROWS = GramOptions(None)


class ActivationWalk:
    """Carries the calibration tokens through a model block by block; every activation is float32.

    Only the inputs of the next block are kept, on the host, and only the block at work is on `device`, so memory does
    not grow with the depth of the model. The model's own weights are never changed.
    """

    @torch.no_grad()
    def __init__(
        self,
        weights: ModelWeights | nn.Module,
        tokens: Tensor,
        device: torch.device | str = "cpu",
        rows: int | None = None,
    ) -> None:
        """Embed `tokens` (n, length) and find out how the model calls its blocks.

        `rows`: sequences of a batch, in place of what TOKENS_AT_ONCE gives.
        """
        self.weights = weights if isinstance(weights, ModelWeights) else ModelWeights(weights)
        self.device = torch.device(device)
        self.name, self.blocks = self.weights.name, self.weights.blocks
        self.position = 0
        self.hidden: list[Tensor] = []
        self._calls: dict[int, list[Call]] = {}
        around = self.weights.around("cpu", head=False)
        for batch in batches(tokens) if rows is None else tokens.split(rows):
            hidden, calls = _record_calls(self.weights, around, batch)
            self.hidden.append(hidden)
            self._calls.setdefault(len(batch), calls)
        self.weights.release()

    @torch.no_grad()
    def step(self, watched: Sequence[str] = (), options: GramOptions = WHOLE_ROWS) -> Grams:
        """Run the next block; returns the GramAccumulator of each `watched` linear by its name inside the block.

        Linears that see the same input share one accumulator.
        """
        index, block = self.position, self.blocks[self.position]
        tensors = self.weights.block(index, self.device)
        self.weights.release()
        with _watching(block, watched, options) as grams:
            for number, hidden in enumerate(self.hidden):
                output = self.run(index, tensors, hidden.to(self.device))
                self.hidden[number] = output.to(hidden.device)
        self.position += 1
        return grams

    def run(self, index: int, tensors: Tensors, hidden: Tensor) -> Tensor:
        """The output of block `index` with these `tensors` for one batch of hidden states on `device`."""
        args, kwargs = self.call(index, len(hidden))
        output = functional_call(self.blocks[index], tensors, (hidden, *args), kwargs)
        return output[0] if isinstance(output, tuple) else output

    def call(self, index: int, rows: int) -> Call:
        """What the model calls block `index` with for a batch of this many sequences, on `device`."""
        return _move(self._calls[rows][index], self.device)


def batches(tokens: Tensor) -> tuple[Tensor, ...]:
    """The sequences (n, length) in batches of at most TOKENS_AT_ONCE tokens, and at least one sequence."""
    return tokens.split(max(1, TOKENS_AT_ONCE // tokens.shape[1]))


@contextmanager
def replaced_blocks(blocks: nn.ModuleList, forward: Any) -> Iterator[None]:
    """Call `forward(hidden_states, ...)` in place of every block."""
    for block in blocks:
        block.forward = forward
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


class _LastBlockReached(Exception):
    """Ends a forward pass that was only there to see how the blocks are called."""


def _record_calls(weights: ModelWeights, around: Tensors, batch: Tensor) -> tuple[Tensor, list[Call]]:
    """The first block's input, and how every block is called, without running any block."""
    inputs: list[Tensor] = []
    calls: list[Call] = []

    def record(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        inputs.append(hidden_states)
        calls.append((args, kwargs))
        if len(calls) == len(weights.blocks):
            raise _LastBlockReached
        return hidden_states

    with replaced_blocks(weights.blocks, record), suppress(_LastBlockReached):
        functional_call(weights.network, around, kwargs={"input_ids": batch, "use_cache": False})
    return inputs[0], calls


@contextmanager
def _watching(block: nn.Module, names: Sequence[str], options: GramOptions) -> Iterator[Grams]:
    """Accumulate the Gram of each named linear's input while the block runs."""
    grams: Grams = {}
    inputs: dict[tuple, tuple[Tensor, GramAccumulator]] = {}
    leaders: dict[GramAccumulator, str] = {}

    def watch(name: str, x: Tensor) -> None:
        if name not in grams:
            identity = (x.data_ptr(), x.shape, x.stride())
            _, grams[name] = inputs.setdefault(identity, (x, GramAccumulator(*options)))
        if leaders.setdefault(grams[name], name) == name:
            grams[name].add(x)

    linears = [(name, linear) for name, linear in block_linears(block) if name in names]
    handles = [
        linear.register_forward_pre_hook(lambda _, args, name=name: watch(name, args[0])) for name, linear in linears
    ]
    handles.append(block.register_forward_hook(lambda *_: inputs.clear()))
    try:
        yield grams
    finally:
        for handle in handles:
            handle.remove()


def _move(value: Any, device: torch.device) -> Any:
    """Tensors inside tuples, lists and dictionaries, on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _move(item, device) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_move(item, device) for item in value)
    return value
