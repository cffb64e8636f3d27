"""Our own layout, for what no serving engine reads (look-up and symmetric formats, padded groups).

`bitdistiller.load_model` reads it. The weights lie in `lookup.safetensors`, a name that plain transformers does not
open: given an unknown `quant_method` it would otherwise only warn and start from random weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bitdistiller.config import ExportRecipe
from bitdistiller.export.layout import Grid, Layout
from bitdistiller.formats import pack_codes, unpack_codes
from bitdistiller.formats.base import SCALE_DTYPES


class Lookup(Layout):
    """Codes (out, ceil(in * bits / 8)) uint8, each row a dense little-endian stream; scales (out, groups[, 2]).

    A code counts the levels from the most negative one; two scales are those of the negative and of the positive
    levels. They are stored in `scale_dtype`, whatever the precision of the model. Zero points are packed like codes.
    Where groups may be padded, the shape of the weight is stored beside it.
    """

    stem = "lookup"
    quant_method = "bitdistiller"

    def __init__(self, recipe: ExportRecipe) -> None:
        super().__init__(recipe)
        zero_point = ("weight_zero_point",) if self.format.has_zero_point else ()
        self._suffixes = ("weight_codes", "weight_scale", *zero_point, *(("weight_shape",) if self.format.pad else ()))

    @property
    def suffixes(self) -> tuple[str, ...]:
        return self._suffixes

    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> dict[str, Tensor]:
        tensors = {
            "weight_codes": pack_codes(codes, self.format.bits),
            "weight_scale": scale.to(SCALE_DTYPES[self.recipe.quantization.scale_dtype]),
            "weight_shape": torch.tensor(codes.shape),
        }
        if zero_point is not None:
            tensors["weight_zero_point"] = pack_codes(zero_point.to(torch.uint8), self.format.bits)
        return {suffix: tensors[suffix] for suffix in self.suffixes}

    def decode(self, tensors: dict[str, Tensor]) -> Grid:
        scale, bits = tensors["weight_scale"].float(), self.format.bits
        shape, packed = tensors.get("weight_shape"), tensors.get("weight_zero_point")
        columns = scale.shape[1] * self.group_size if shape is None else int(shape[1])
        zero_point = None if packed is None else unpack_codes(packed, bits, scale.shape[1]).to(torch.int32)
        return unpack_codes(tensors["weight_codes"], bits, columns), scale, zero_point

    def quantization_config(self, unquantised: list[str]) -> dict[str, Any]:
        recipe, levels = self.recipe.quantization.model_dump(mode="json"), self.format.level_table()
        table = {} if levels is None else {"levels": levels}
        return {"quant_method": self.quant_method, **recipe, **table, "ignore": unquantised}
