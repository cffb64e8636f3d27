"""The GPTQ layout with zero points as they are (`gptq_v2`), which GPTQModel reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bitdistiller.export.conversion.half import to_half
from bitdistiller.export.conversion.unfit import Unfit
from bitdistiller.export.layout import Grid, Layout
from bitdistiller.formats import pack_codes, unpack_codes

WORD = 32


class GptqV2(Layout):
    """
    Per layer: `qweight` int32 (in * bits / 32, out), `qzeros` int32 (groups, out * bits / 32), `scales` float16
    (groups, out) and `g_idx` int32 (in,), the group of every input feature.

    Codes run along the input features and zero points along the output features, densely from the lowest bit on; a
    3-bit code may lie in two words. The older `gptq` layout stores zero points less one, which has no code for zero.
    """

    stem = "model"
    quant_method = "gptq"
    suffixes = ("qweight", "qzeros", "scales", "g_idx")

    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> dict[str, Tensor]:
        """Raises Unfit where a shape leaves words half empty, or a scale does not fit float16."""
        assert zero_point is not None
        for what, size in (("output features", codes.shape[0]), ("input features", codes.shape[1])):
            if size * self.format.bits % WORD:
                raise Unfit(f"layout gptq-v2: {size} {what} of {self.format.bits} bits do not fill 32-bit words")
        half, changed = to_half(scale, self._used(codes, zero_point))
        if changed.any():
            raise Unfit(
                f"layout gptq-v2: {int(changed.sum())} of {changed.numel()} scales do not fit float16; "
                "accepted: runs with scale_dtype: bfloat16, whose scales above 8e-6 do"
            )
        return {
            "qweight": self._words(codes).T.contiguous(),
            "qzeros": self._words(zero_point.T.to(torch.uint8)),
            "scales": half.T.contiguous(),
            "g_idx": torch.arange(codes.shape[1], dtype=torch.int32) // self.group_size,
        }

    def decode(self, tensors: dict[str, Tensor]) -> Grid:
        bits, columns = self.format.bits, len(tensors["g_idx"])
        codes = unpack_codes(_bytes(tensors["qweight"].T), bits, columns)
        zero_point = unpack_codes(_bytes(tensors["qzeros"]), bits, codes.shape[0]).T
        return codes, tensors["scales"].T.float(), zero_point.to(torch.int32)

    def quantization_config(self, unquantised: list[str]) -> dict[str, Any]:
        return {
            "quant_method": self.quant_method,
            "checkpoint_format": "gptq_v2",
            "bits": self.format.bits,
            "group_size": self.group_size,
            "sym": False,
            "desc_act": False,
            "lm_head": False,
            "pack_dtype": "int32",
            "meta": {"quantizer": ["bitdistiller"]},
        }

    def _used(self, codes: Tensor, zero_point: Tensor) -> Tensor:
        """Which groups hold anything but zeros, (out, groups)."""
        return (codes.unflatten(1, (-1, self.group_size)) != zero_point.unsqueeze(-1)).any(dim=-1)

    def _words(self, values: Tensor) -> Tensor:
        return pack_codes(values.contiguous(), self.format.bits).view(torch.int32)


def _bytes(words: Tensor) -> Tensor:
    return words.contiguous().view(torch.uint8)
