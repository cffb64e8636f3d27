"""The groups of parameters that an optimizer gets."""

import pytest
import torch
from helpers.tiny import make_model

from bitdistiller.config import Training, WarmStart
from bitdistiller.distillation.optimizers import make_optimizer
from bitdistiller.distillation.parameters import freeze_grids, grid_parameters, parameter_groups
from bitdistiller.formats import get_format
from bitdistiller.layers import fake_quantized_linears, quantize_linears


def student(train_scales, **changes):
    model = make_model(**changes)
    quantize_linears(model, get_format("int2"), 32, train_scales=train_scales)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_in_one_group(tied):
    model = student(True, tie_word_embeddings=tied)
    groups = parameter_groups(model, Training(zero_point_learning_rate=1e-3))
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted({id(parameter) for parameter in model.parameters()})
    layers = [layer for _, layer in fake_quantized_linears(model)]
    assert [list(map(id, group["params"])) for group in groups[1:]] == [
        [id(layer.scale) for layer in layers],
        [id(layer.zero_point) for layer in layers],
    ]
    assert len(grid_parameters(model, "scale")) == 14


def test_without_trained_scales_there_is_one_group():
    model = student(False)
    (group,) = parameter_groups(model, Training(learning_rate=1e-3, scale_learning_rate=5e-3))
    assert list(map(id, group["params"])) == list(map(id, model.parameters()))
    assert group["lr"] == 1e-3


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({}, [1e-3, 1e-3]),
        ({"scale_learning_rate": 2e-4}, [1e-3, 2e-4]),
        ({"zero_point_learning_rate": 3e-2}, [1e-3, 1e-3, 3e-2]),
        ({"scale_learning_rate": 2e-4, "zero_point_learning_rate": 3e-2}, [1e-3, 2e-4, 3e-2]),
    ],
)
def test_learning_rates_and_weight_decay(rates, expected):
    training = Training(learning_rate=1e-3, weight_decay=0.1, **rates)
    model = student(True)
    freeze_grids(model, training)
    optimizer = make_optimizer(parameter_groups(model, training), training)
    assert [group["lr"] for group in optimizer.param_groups] == expected
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0, 0.0][: len(expected)]
    groups = parameter_groups(model, WarmStart(learning_rate=1e-3, **{"scale_learning_rate": 1e-3} | rates))
    assert [group["lr"] for group in groups] == expected


def test_frozen_parameters_are_left_out():
    model = student(True)
    model.get_input_embeddings().requires_grad_(False)
    grouped = [parameter for group in parameter_groups(model, Training()) for parameter in group["params"]]
    assert len(grouped) == len(list(model.parameters())) - 1
    assert all(isinstance(parameter, torch.nn.Parameter) and parameter.requires_grad for parameter in grouped)
