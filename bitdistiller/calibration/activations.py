"""Full-precision activations, taken through the decoder one block at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from bitdistiller.calibration.gram import GramAccumulator
from bitdistiller.layers import block_linears, decoder_blocks

TOKENS_AT_ONCE = 8192

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a block is called with besides the hidden states: masks, positions, switches."""

Grams = dict[str, GramAccumulator]


class ActivationWalk:
    """Carries the calibration tokens through a model block by block; every activation is float32.

    Only the inputs of the next block are kept, on the host, and only the block at work is on `device` and in float32,
    so memory does not grow with the depth of the model. The model's own weights are never changed.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, tokens: Tensor, device: torch.device | str = "cpu") -> None:
        """Embed `tokens` (n, length) and find out how the model calls its blocks."""
        self.device = torch.device(device)
        self.name, self.blocks = decoder_blocks(model)
        self.position = 0
        self._hidden: list[Tensor] = []
        self._calls: dict[int, list[Call]] = {}
        model.eval()
        _upcast_outside(model, self.blocks)
        for batch in tokens.split(max(1, TOKENS_AT_ONCE // tokens.shape[1])):
            hidden, calls = _record_calls(model, self.blocks, batch)
            self._hidden.append(hidden)
            self._calls.setdefault(len(batch), calls)

    @torch.no_grad()
    def step(self, watched: Sequence[str] = (), group_size: int | None = None, stride: int = 1) -> Grams:
        """Run the next block; returns the GramAccumulator of each `watched` linear by its name inside the block.

        Linears that see the same input share one accumulator. `group_size` and `stride` are those of the Grams.
        """
        block = self.blocks[self.position]
        with _at_work(block, self.device), _watching(block, watched, group_size, stride) as grams:
            for index, hidden in enumerate(self._hidden):
                args, kwargs = _move(self._calls[len(hidden)][self.position], self.device)
                output = block(hidden.to(self.device), *args, **kwargs)
                output = output[0] if isinstance(output, tuple) else output
                self._hidden[index] = output.to(hidden.device)
        self.position += 1
        return grams


class _LastBlockReached(Exception):
    """Ends a forward pass that was only there to see how the blocks are called."""


def _record_calls(model: nn.Module, blocks: nn.ModuleList, batch: Tensor) -> tuple[Tensor, list[Call]]:
    """The first block's input, and how every block is called, without running any block."""
    inputs: list[Tensor] = []
    calls: list[Call] = []

    def record(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        inputs.append(hidden_states)
        calls.append((args, kwargs))
        if len(calls) == len(blocks):
            raise _LastBlockReached
        return hidden_states

    for block in blocks:
        block.forward = record
    try:
        with suppress(_LastBlockReached):
            model(input_ids=batch.to(model.device), use_cache=False)
    finally:
        for block in blocks:
            del block.forward
    return inputs[0], calls


@contextmanager
def _watching(block: nn.Module, names: Sequence[str], group_size: int | None, stride: int) -> Iterator[Grams]:
    """Accumulate the Gram of each named linear's input while the block runs."""
    grams: Grams = {}
    inputs: dict[tuple, tuple[Tensor, GramAccumulator]] = {}
    leaders: dict[GramAccumulator, str] = {}

    def watch(name: str, x: Tensor) -> None:
        if name not in grams:
            identity = (x.data_ptr(), x.shape, x.stride())
            _, grams[name] = inputs.setdefault(identity, (x, GramAccumulator(group_size, stride)))
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


@contextmanager
def _at_work(block: nn.Module, device: torch.device) -> Iterator[None]:
    """Hold a block on `device` in float32; afterwards it is where and what it was."""
    before = [(parameter, parameter.data) for parameter in block.parameters()]
    buffers = [(buffer, buffer.data) for buffer in block.buffers()]
    try:
        for tensor, data in before + buffers:
            tensor.data = data.to(device, torch.float32 if data.is_floating_point() else data.dtype)
        yield
    finally:
        for tensor, data in before + buffers:
            tensor.data = data


def _upcast_outside(model: nn.Module, blocks: nn.ModuleList) -> None:
    """Make everything outside the blocks (embeddings, norms, heads) float32, in place."""
    inside = {id(tensor) for tensor in (*blocks.parameters(), *blocks.buffers())}
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) not in inside and tensor.is_floating_point():
            tensor.data = tensor.data.float()


def _move(value: Any, device: torch.device) -> Any:
    """Tensors inside tuples, lists and dictionaries, on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _move(item, device) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_move(item, device) for item in value)
    return value
