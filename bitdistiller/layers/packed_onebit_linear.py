"""The 1-bit linear layer of OneBit for inference: signs stay packed, eight to a byte, between two vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bitdistiller.errors import InputError
from bitdistiller.formats import pack_signs, unpack_signs
from bitdistiller.kernels.packed import PackedMatrix, multiply
from bitdistiller.layers.float32_buffers import Float32Buffers
from bitdistiller.layers.onebit_linear import EPSILON, OneBitLinear


class PackedOneBitLinear(Float32Buffers):
    """
    As OneBitLinear, whose output it has but for weights of exactly 0, which count as +1 here.

    The product, with `weight_scale` in it, is summed in float32 and never unpacked to whole bytes. Buffers: `codes`
    int32 (out, words), `weight_scale` float32 (out,), `input_factor` float32 (in,), `bias` (out,) where there is one.
    """

    FLOAT32 = ("weight_scale", "input_factor", "levels")
    codes: Tensor
    weight_scale: Tensor
    input_factor: Tensor
    bias: Tensor | None

    def __init__(self, packed: Tensor, weight_scale: Tensor, input_factor: Tensor, bias: Tensor | None = None) -> None:
        """
        packed: (out, in / 8) as `formats.pack_signs` returns it, or int8 as in the released files.

        Raises InputError where the shapes do not fit each other.
        """
        super().__init__()
        self.out_features, self.in_features = len(weight_scale), len(input_factor)
        if tuple(packed.shape) != (self.out_features, self.in_features // 8) or self.in_features % 8:
            raise InputError(
                f"packed signs of shape {tuple(packed.shape)}, weight_scale of {self.out_features} and input_factor of "
                f"{self.in_features}; accepted: (out, in / 8), (out,) and (in,)"
            )
        matrix = self._matrix((unpack_signs(packed) < 0).to(torch.uint8), weight_scale)
        self._shape = {key: getattr(matrix, key) for key in ("bits", "columns", "filled", "group_size", "points")}
        self.register_buffer("codes", matrix.codes)
        self.register_buffer("levels", matrix.levels)
        self.register_buffer("weight_scale", weight_scale.float())
        self.register_buffer("input_factor", input_factor.float())
        self.register_buffer("bias", bias)

    @classmethod
    def from_layer(cls, layer: OneBitLinear) -> PackedOneBitLinear:
        """A trained layer, packed."""
        weight, scale, factor = layer.weight.detach(), layer.weight_scale.detach(), layer.input_factor.detach()
        return cls(pack_signs(weight), scale, factor, None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        scaled = x.reshape(-1, self.in_features) * self.input_factor.to(x.dtype)
        scale = self.weight_scale.view(-1, 1, 1)
        weight = PackedMatrix(**self._shape, codes=self.codes, scale=scale, zero_point=None, levels=self.levels)
        product = multiply(scaled, weight).float()
        normed = F.layer_norm(product, (self.out_features,), eps=EPSILON)
        normed = normed if self.bias is None else normed + self.bias.float()
        return normed.to(x.dtype).view(*x.shape[:-1], self.out_features)

    @staticmethod
    def _matrix(codes: Tensor, scale: Tensor) -> PackedMatrix:
        return PackedMatrix.pack(codes, 1, scale.view(-1, 1), None, [1.0, -1.0], codes.shape[1])

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
