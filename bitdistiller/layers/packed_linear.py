"""A linear layer whose weight stays packed in memory: for inference alone."""

from __future__ import annotations

from torch import Tensor, nn

from bitdistiller.errors import InputError
from bitdistiller.formats import NumberFormat
from bitdistiller.kernels.packed import PackedMatrix, multiply
from bitdistiller.layers.float32_buffers import Float32Buffers


class PackedLinear(Float32Buffers):
    """
    `x @ values.T + bias`, where the values are those of the codes in float32.

    Sums are float32 and rounded once to the dtype of x. A dense copy of the layer rounds its values to that dtype
    first, so in bfloat16 the two differ by such roundings. Buffers: `codes` int32 (out, words), `scale` float32
    (out, groups, 1 or 2), `levels` float32 (16,), and `zero_point` uint8 (out, groups) where the format has one.
    """

    FLOAT32 = ("scale", "levels")
    codes: Tensor
    scale: Tensor
    levels: Tensor
    zero_point: Tensor | None

    def __init__(self, weight: PackedMatrix, bias: Tensor | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = weight.columns, weight.rows
        self._shape = {key: getattr(weight, key) for key in ("bits", "columns", "filled", "group_size", "points")}
        for name in ("codes", "scale", "levels", "zero_point"):
            self.register_buffer(name, getattr(weight, name))
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @classmethod
    def from_codes(
        cls,
        codes: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        number_format: NumberFormat,
        group_size: int,
        bias: Tensor | None = None,
    ) -> PackedLinear:
        """
        Of what `number_format.quantize` returns.

        Raises InputError for formats whose values are not a level times a scale, and as `PackedMatrix.pack` does.
        """
        levels = number_format.level_table()
        if levels is None:
            if not number_format.packable:
                raise InputError(f"packed weights: format {number_format.name}; accepted: int2 to int4, nf2 to nf4")
            levels = [float(code) for code in range(2**number_format.bits)]
        return cls(PackedMatrix.pack(codes, number_format.bits, scale, zero_point, levels, group_size), bias)

    @property
    def packed(self) -> PackedMatrix:
        """The weight, on the device that the layer is on."""
        return PackedMatrix(
            **self._shape, codes=self.codes, scale=self.scale, zero_point=self.zero_point, levels=self.levels
        )

    def forward(self, x: Tensor) -> Tensor:
        product = multiply(x.reshape(-1, self.in_features), self.packed)
        product = product.view(*x.shape[:-1], self.out_features)
        return product if self.bias is None else product + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self._shape['bits']}"
