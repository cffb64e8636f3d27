"""Swapping a model's linear layers for fake-quantised ones, and back."""

from collections.abc import Iterator

import torch
from torch import nn

from bitdistiller.formats import NumberFormat, resolve_group_size, trained_grid
from bitdistiller.layers.quantized_linear import FakeQuantizedLinear
from bitdistiller.layers.trained_grid_linear import TrainedGridLinear
from bitdistiller.layers.walk import quantized_linear_names


def quantize_linears(
    model: nn.Module,
    number_format: NumberFormat,
    group_size: int | None,
    scale_grad: bool = True,
    train_scales: bool = False,
) -> list[str]:
    """Swap every linear layer of the decoder blocks for a FakeQuantizedLinear, in place and without copying weights.

    With `train_scales` it is a TrainedGridLinear, which starts on the grid of its weight and so with the same values.
    `lm_head`, embeddings and norms stay as they are. Returns the names of the swapped layers. Raises InputError,
    naming the layer and its size, before anything is swapped when `group_size` does not divide, and for a format
    whose scales cannot be trained.
    """
    if train_scales:
        trained_grid(number_format)
    names = quantized_linear_names(model)
    for name in names:
        resolve_group_size(model.get_submodule(name).in_features, group_size, name, number_format.pad)
    for name in names:
        linear = model.get_submodule(name)
        if train_scales:
            layer = TrainedGridLinear.from_linear(linear, number_format, group_size, name=name)
        else:
            layer = FakeQuantizedLinear.from_linear(linear, number_format, group_size, scale_grad, name)
        model.set_submodule(name, layer)
    return names


def fake_quantized_linears(model: nn.Module) -> Iterator[tuple[str, FakeQuantizedLinear]]:
    """(full name, layer) of every fake-quantised linear of the model."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, FakeQuantizedLinear))


def restore_linears(model: nn.Module) -> list[str]:
    """Swap the fake-quantised linears back for plain ones that hold the master weights; returns their names."""
    names = [name for name, _ in fake_quantized_linears(model)]
    for name in names:
        model.set_submodule(name, _plain_linear(model.get_submodule(name)))
    return names


@torch.no_grad()
def bake_linears(model: nn.Module) -> list[str]:
    """Like `restore_linears`, with the quantised values in place of the masters: same outputs, no work per forward.

    The values are rounded to the master's dtype, as they are in a forward of that dtype. For evaluation and
    generation; the masters are lost.
    """
    baked = {name: layer.quantized_weight() for name, layer in fake_quantized_linears(model)}
    restore_linears(model)
    for name, weight in baked.items():
        model.get_submodule(name).weight.copy_(weight)
    return list(baked)


def _plain_linear(layer: FakeQuantizedLinear) -> nn.Linear:
    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    linear.weight, linear.bias = layer.weight, layer.bias
    return linear.train(layer.training)
