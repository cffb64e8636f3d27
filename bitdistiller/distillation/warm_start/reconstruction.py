"""One block: made quantised, trained to reproduce the full-precision one, run on to the next."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitdistiller.calibration import ActivationWalk, apply_clip
from bitdistiller.config import Training, WarmStartRecipe
from bitdistiller.distillation.optimizers import make_optimizer, set_learning_rates
from bitdistiller.distillation.parameters import freeze_grids, parameter_groups
from bitdistiller.distillation.schedules import schedule_factor
from bitdistiller.formats import get_format
from bitdistiller.layers import quantize_block

MAX_GRADIENT_NORM = 1.0
OPTIMIZER = Training(adam_beta2=0.99)
"""AdamW; a block sees a few hundred to a few thousand steps, in which its gradients fall fast."""


@dataclass(frozen=True)
class Block:
    """A fake-quantised block that is called as the model calls the one it stands for."""

    walk: ActivationWalk
    index: int
    module: nn.Module
    precision: str

    def __call__(self, hidden: Tensor) -> Tensor:
        """The output (rows, length, hidden size) for one batch of hidden states on the device."""
        args, kwargs = self.walk.call(self.index, len(hidden))
        with torch.autocast(hidden.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            output = self.module(hidden, *args, **kwargs)
        return (output[0] if isinstance(output, tuple) else output).to(hidden.dtype)


def quantised_block(walk: ActivationWalk, index: int, recipe: WarmStartRecipe, ranges: dict[str, Tensor]) -> Block:
    """Block `index` with float32 weights of its own, clipped where `ranges` says so, fake-quantised, on the device."""
    name, quantization = f"{walk.name}.{index}", recipe.quantization
    module = copy.deepcopy(walk.blocks[index])
    _fill(module, walk.weights.block(index, walk.device))
    walk.weights.release()
    own = {key.removeprefix(f"{name}."): value for key, value in ranges.items() if key.startswith(f"{name}.")}
    apply_clip(module, own, quantization.group_size)
    number_format = get_format(quantization.format, quantization.scale_dtype, pad=quantization.pad)
    grid = {"scale_grad": recipe.scale_grad, "train_scales": recipe.train_scales}
    quantize_block(module, name, number_format, quantization.group_size, **grid)
    freeze_grids(module, recipe.warm_start)
    return Block(walk, index, module, recipe.precision)


def _fill(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a module tensors of its own, parameters and buffers alike."""
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        inner = module.get_submodule(owner)
        if leaf in inner._parameters:
            inner._parameters[leaf] = nn.Parameter(tensor.clone())
        else:
            inner._buffers[leaf] = tensor.clone()


def train_block(
    block: Block, inputs: list[Tensor], targets: list[Tensor], recipe: WarmStartRecipe, stepped: Callable[[], None]
) -> None:
    """
    Minimise the mean squared error of the block's outputs, relative to the mean square of `targets`.

    inputs, targets: batches (rows, length, hidden size) on the host. Every epoch takes all of them in a seeded order.
    `stepped` is called after every step and may raise.
    """
    options, device = recipe.warm_start, block.walk.device
    optimizer = make_optimizer(parameter_groups(block.module, options), OPTIMIZER)
    parameters = list(block.module.parameters())
    energy, total, step = mean_square(targets), options.epochs * len(inputs), 0
    order = torch.Generator().manual_seed(options.seed + block.index)
    for _ in range(options.epochs):
        for number in torch.randperm(len(inputs), generator=order).tolist():
            set_learning_rates(optimizer, schedule_factor("cosine", 0.0, total, step))
            error = block(inputs[number].to(device)) - targets[number].to(device)
            optimizer.zero_grad()
            (error.square().mean() / energy).backward()
            nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
            optimizer.step()
            step += 1
            stepped()


@torch.no_grad()
def run_block(block: Block, hidden: list[Tensor], targets: list[Tensor] | None = None, replace: bool = False) -> float:
    """
    The squared error of the block's outputs for the batches `hidden`, relative to that of zeros; 0 without targets.

    With `replace` every output takes the place of its input, so that the next block can go on with them.
    """
    error = 0.0
    for number, batch in enumerate(hidden):
        output = block(batch.to(block.walk.device)).to(batch.device)
        if targets is not None:
            error += (output - targets[number]).square().mean(dtype=torch.float64).item() / len(hidden)
        if replace:
            hidden[number] = output
    return error / mean_square(targets) if targets is not None else 0.0


def mean_square(batches: list[Tensor]) -> float:
    """Mean square of all numbers in batches of one size; never 0."""
    total = sum(batch.square().mean(dtype=torch.float64).item() for batch in batches) / len(batches)
    return max(total, torch.finfo(torch.float32).tiny)
