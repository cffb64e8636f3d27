"""The 1-bit linear layer of OneBit: the signs of its weight between two trained vectors (arXiv 2402.11295)."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitdistiller.layers.precision import product_dtype

SLOPE = 1.001
"""The sign's gradient is taken to be `1.001 - tanh(w)^2`."""
EPSILON = 1e-5
VECTORS = ("weight_scale", "input_factor")
"""What the state dict of such a layer has beside weight and bias."""
VECTOR_STEM = "vectors"
"""Name, without `.safetensors`, of the file beside a student's latent weights that holds these tensors."""


class OneBitLinear(nn.Linear):
    """`layer_norm(((x * input_factor) sign(weight)^T) * weight_scale) + bias`.

    The layer norm is over the output features and has no parameters. Parameters: `weight` (out, in), the latent weight
    of which a forward sees the signs alone (the sign of 0 is 0); `weight_scale` (out,); `input_factor` (in,); `bias`
    (out,) where asked for. The product is computed in the dtype of `x` (or of autocast), the rest in float32.
    """

    weight: nn.Parameter
    weight_scale: nn.Parameter
    input_factor: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Weight and bias start as those of nn.Linear do, both vectors at 1; a start from a model replaces them."""
        nn.Module.__init__(self)  # nn.Linear's would make a weight that this one replaces
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features, **where))
        self.weight_scale = nn.Parameter(torch.empty(out_features, **where))
        self.input_factor = nn.Parameter(torch.empty(in_features, **where))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features, **where)) if bias else None)
        self.reset_parameters()

    @classmethod
    def of(cls, weight: Tensor, weight_scale: Tensor, input_factor: Tensor, bias: Tensor | None = None) -> Self:
        """A layer of these tensors, which become its parameters; shapes and dtypes as in the class."""
        layer = cls(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        layer.weight, layer.weight_scale, layer.input_factor = map(nn.Parameter, (weight, weight_scale, input_factor))
        layer.bias = None if bias is None else nn.Parameter(bias)
        return layer

    def reset_parameters(self) -> None:
        """The values of a layer that was not started from a model."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                nn.init.uniform_(parameter, -bound, bound)
        nn.init.ones_(self.weight_scale)
        nn.init.ones_(self.input_factor)

    def forward(self, x: Tensor) -> Tensor:
        dtype = product_dtype(x)
        signs = Sign.apply(self.weight).to(dtype)
        product = F.linear(x.to(dtype) * self.input_factor.to(dtype), signs)
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(dtype, torch.float32)
            normed = F.layer_norm(product.to(wide) * self.weight_scale.to(wide), (self.out_features,), eps=EPSILON)
            return (normed if self.bias is None else normed + self.bias.to(wide)).to(dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Sign(torch.autograd.Function):
    """`sign(weight)`, whose gradient is the upstream one times `1.001 - tanh(weight)^2`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return weight.sign()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        wide = torch.promote_types(weight.dtype, torch.float32)
        return (upstream.to(wide) * (SLOPE - weight.to(wide).tanh().square())).to(weight.dtype)
