"""Swapping a model's linear layers for fake-quantised ones, and back."""

from collections.abc import Iterator

import torch
from torch import nn

from bitdistiller.formats import NumberFormat, resolve_group_size, trained_grid
from bitdistiller.layers.quantized_linear import FakeQuantizedLinear
from bitdistiller.layers.trained_grid_linear import TrainedGridLinear
from bitdistiller.layers.walk import block_linears, quantized_linear_names


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
    names = quantized_linear_names(model)
    _swap(model, names, names, number_format, group_size, scale_grad, train_scales)
    return names


def quantize_block(
    block: nn.Module,
    name: str,
    number_format: NumberFormat,
    group_size: int | None,
    scale_grad: bool = True,
    train_scales: bool = False,
) -> None:
    """As `quantize_linears` for one decoder block alone, whose full name in its model is `name`."""
    inside = [inner for inner, _ in block_linears(block)]
    full = [f"{name}.{inner}" for inner in inside]
    _swap(block, inside, full, number_format, group_size, scale_grad, train_scales)


def _swap(
    root: nn.Module,
    places: list[str],
    names: list[str],
    number_format: NumberFormat,
    group_size: int | None,
    scale_grad: bool,
    train_scales: bool,
) -> None:
    """Swap the linears at `places` in `root`; `names` are their full names."""
    kind = TrainedGridLinear if train_scales else FakeQuantizedLinear
    if train_scales:
        trained_grid(number_format)
    for place, name in zip(places, names, strict=True):
        resolve_group_size(root.get_submodule(place).in_features, group_size, name, number_format.pad)
    for place, name in zip(places, names, strict=True):
        layer = kind.from_linear(root.get_submodule(place), number_format, group_size, scale_grad, name)
        root.set_submodule(place, layer)


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
