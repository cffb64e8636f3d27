"""The `pack-quantized` layout of compressed-tensors, which transformers and vLLM read without this package.

Codes and zero points are signed there: code q is stored as the integer `q - 2^(b-1)`. Values are packed densely, 32 of
them in b int32 words; codes along the input features, zero points along the output features.
"""

from __future__ import annotations

from typing import Any

import torch
from compressed_tensors.compressors.pack_quantized import pack_to_int32
from torch import Tensor

from bitdistiller.export.layout import Grid, Layout
from bitdistiller.formats.packing import packed_bytes, unpack_codes


class PackQuantized(Layout):
    """Asymmetric int2, int3 and int4.

    The reader multiplies in the precision of the stored scale and rounds the product to the model's dtype. bfloat16
    scales therefore stay bfloat16 in a bfloat16 model (the product rounds once, as in fake quantisation); a float32
    model needs them as float32, because a code times a bfloat16 scale does not fit bfloat16.
    """

    stem = "model"
    quant_method = "compressed-tensors"
    suffixes = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")

    @property
    def stored_scale_dtype(self) -> torch.dtype:
        """Precision of the scales in the file."""
        narrow = self.recipe.dtype == self.recipe.quantization.scale_dtype == "bfloat16"
        return torch.bfloat16 if narrow else torch.float32

    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> dict[str, Tensor]:
        bits = self.format.bits
        return {
            "weight_packed": pack_to_int32(self._signed(codes), bits),
            "weight_scale": scale.to(self.stored_scale_dtype),
            "weight_zero_point": pack_to_int32(self._signed(zero_point), bits, packed_dim=0),
            "weight_shape": torch.tensor(codes.shape),
        }

    def decode(self, tensors: dict[str, Tensor]) -> Grid:
        bits, scale = self.format.bits, tensors["weight_scale"]
        shape = torch.Size(tensors["weight_shape"].tolist())
        codes = unpack_words(tensors["weight_packed"], bits, shape[1])
        zero_point = unpack_words(tensors["weight_zero_point"].T, bits, shape[0]).T
        return codes, scale.float(), zero_point.to(torch.int32)

    def quantization_config(self, unquantised: list[str]) -> dict[str, Any]:
        weights = {
            "num_bits": self.format.bits,
            "type": "int",
            "symmetric": False,
            "strategy": "group",
            "group_size": self.group_size,
            "dynamic": False,
        }
        return {
            "quant_method": self.quant_method,
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
            "ignore": unquantised,
            "dequantize": True,
        }

    def _signed(self, values: Tensor) -> Tensor:
        return (values.to(torch.int16) - 2 ** (self.format.bits - 1)).to(torch.int8)


def unpack_words(packed: Tensor, bits: int, length: int) -> Tensor:
    """
    The unsigned values (rows, length) uint8 in int32 words (rows, words); value k begins at bit k * bits of its row.

    compressed-tensors reads this layout from version 0.18 on; in vLLM's environment there is an older one.
    """
    stream = packed.clone(memory_format=torch.contiguous_format).view(torch.uint8)[:, : packed_bytes(length, bits)]
    return unpack_codes(stream, bits, length)
