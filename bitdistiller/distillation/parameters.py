"""What an optimizer trains: the weights and, where they are trained, the scales and the zero points of the grids."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from bitdistiller.layers import GRID_TENSORS, OneBitLinear, TrainedGridLinear


class Rates(Protocol):
    """The learning rates of a recipe: those of `config.Training` and of `config.WarmStart`."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def scale_learning_rate(self) -> float | None: ...

    @property
    def zero_point_learning_rate(self) -> float: ...


def parameter_groups(model: nn.Module, rates: Rates) -> list[dict[str, Any]]:
    """
    Groups for `make_optimizer`: the weights and everything else that trains, then the scales, then the zero points.

    The two grid groups are there only where layers have them and they train; they have learning rates of their own and
    no weight decay. The biases of 1-bit layers, which decay neither, come last. A parameter that two modules share is
    in one group, once.
    """
    biases = [p for p in _onebit_biases(model) if p.requires_grad]
    grids = {kind: [p for p in grid_parameters(model, kind) if p.requires_grad] for kind in GRID_TENSORS}
    taken = {id(parameter) for parameters in (*grids.values(), biases) for parameter in parameters}
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in taken]
    own = {"scale": rates.scale_learning_rate or rates.learning_rate, "zero_point": rates.zero_point_learning_rate}
    groups: list[dict[str, Any]] = [{"params": weights, "lr": rates.learning_rate}]
    groups += [{"params": grids[kind], "lr": own[kind], "weight_decay": 0.0} for kind in GRID_TENSORS if grids[kind]]
    return groups + ([{"params": biases, "lr": rates.learning_rate, "weight_decay": 0.0}] if biases else [])


def freeze_grids(model: nn.Module, rates: Rates) -> None:
    """Zero points without a learning rate need no gradient; call it before an engine takes the model."""
    for parameter in grid_parameters(model, "zero_point"):
        parameter.requires_grad_(rates.zero_point_learning_rate > 0)


def _onebit_biases(model: nn.Module) -> list[nn.Parameter]:
    layers = (module for module in model.modules() if isinstance(module, OneBitLinear))
    return [layer.bias for layer in layers if layer.bias is not None]


def grid_parameters(model: nn.Module, kind: str) -> list[nn.Parameter]:
    """The parameters called `kind` (scale or zero_point) of all layers on trained grids, in the order of the model."""
    return [getattr(module, kind) for module in model.modules() if isinstance(module, TrainedGridLinear)]
