"""A quantisation library that needs none: rounds to nearest, and changes a norm as AWQ does."""

from bitdistiller.baselines.base import Chosen, Result
from bitdistiller.formats import get_format

LIBRARIES = ("torch",)
NORM = "model.layers.0.input_layernorm.weight"


def quantise(task):
    number_format = get_format(task.quantization.format, scale_dtype=task.quantization.scale_dtype)
    size = task.quantization.group_size
    task.model.get_parameter(NORM).data.mul_(2)

    def layer(name):
        weight = task.model.get_submodule(name).weight.detach()
        grid = number_format.quantize(weight, size)
        return Chosen(*grid, number_format.dequantize(*grid, size).to(weight.dtype))

    return Result(task.model, layer)
