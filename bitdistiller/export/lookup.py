"""Our own layout for look-up formats (nf2, nf3, nf4), which no serving engine reads: `bitdistiller.load_model` does.

The weights lie in `lookup.safetensors`, a name that plain transformers does not open: given an unknown `quant_method`
it would otherwise only warn and start from random weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bitdistiller.export.layout import Grid, Layout
from bitdistiller.formats import pack_codes, unpack_codes

SCALE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Lookup(Layout):
    """Codes (out, ceil(in * bits / 8)) uint8, each row a dense little-endian stream; scales (out, groups, 2).

    A code counts the levels from the most negative one; the two scales are those of the negative and of the positive
    levels. They are stored in `scale_dtype`, whatever the precision of the model.
    """

    stem = "lookup"
    quant_method = "bitdistiller"
    suffixes = ("weight_codes", "weight_scale")

    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> dict[str, Tensor]:
        stored = scale.to(SCALE_DTYPES[self.recipe.quantization.scale_dtype])
        return {"weight_codes": pack_codes(codes, self.format.bits), "weight_scale": stored}

    def decode(self, tensors: dict[str, Tensor]) -> Grid:
        scale = tensors["weight_scale"].float()
        codes = unpack_codes(tensors["weight_codes"], self.format.bits, scale.shape[1] * self.group_size)
        return codes, scale, None

    def quantization_config(self, unquantised: list[str]) -> dict[str, Any]:
        recipe = self.recipe.quantization.model_dump(mode="json")
        return {"quant_method": self.quant_method, **recipe, "levels": self._levels(), "ignore": unquantised}

    def _levels(self) -> list[float]:
        """The table that codes point into."""
        codes = torch.arange(2**self.format.bits, dtype=torch.uint8)[None]
        return self.format.dequantize(codes, torch.ones(1, 1, 2), None, codes.shape[1])[0].tolist()
