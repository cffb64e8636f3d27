"""A linear layer whose weight is quantised in every forward and trained in full precision."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitdistiller.formats import NumberFormat, resolve_group_size
from bitdistiller.layers.precision import product_dtype


class FakeQuantizedLinear(nn.Linear):
    """`F.linear(x, fake_quantize(weight), bias)`, computed in the dtype of `x` (or of autocast).

    `weight` (out, in) and `bias` stay the trainable master parameters under their usual names, so state dicts are
    those of `nn.Linear`. The quantiser works in float32 whatever the dtypes, and gradients arrive at the master
    weight by the straight-through rule of the number format.
    """

    number_format: NumberFormat
    group_size: int
    scale_grad: bool
    name: str
    clock: Any = None
    """Times the quantiser through its method `quantiser(quantise, weight, dtype)`; None: nothing is timed."""

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        number_format: NumberFormat,
        group_size: int | None,
        scale_grad: bool = True,
        name: str = "weight",
    ) -> Self:
        """Wrap the parameters of `linear` without copying them; `name` is the layer's name in error messages.

        Raises InputError when `group_size` does not divide the input features.
        """
        size = resolve_group_size(linear.in_features, group_size, name, number_format.pad)
        layer = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        layer.number_format, layer.group_size, layer.scale_grad, layer.name = number_format, size, scale_grad, name
        return layer.train(linear.training)

    def quantized_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """The fake-quantised weight (out, in), differentiable with respect to the master.

        It is rounded once, to `dtype` (default: the master's).
        """
        if self.clock is None:
            return self._quantize(self.weight, dtype)
        return self.clock.quantiser(self._quantize, self.weight, dtype)

    def _quantize(self, weight: Tensor, dtype: torch.dtype | None) -> Tensor:
        return self.number_format.fake_quantize(weight, self.group_size, self.scale_grad, self.name, dtype)

    def forward(self, x: Tensor) -> Tensor:
        dtype = product_dtype(x)
        narrow = self.weight.dtype.itemsize < dtype.itemsize  # a narrow master's values are rounded to its own dtype
        weight = self.quantized_weight(None if narrow else dtype).to(dtype)
        return F.linear(x, weight, None if self.bias is None else self.bias.to(dtype))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, format={self.number_format.name}, group_size={self.group_size}"
