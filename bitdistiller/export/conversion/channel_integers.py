"""LLM-QAT's integers as compressed-tensors has them (W8A8, W4A8, weights alone), for vLLM and plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitdistiller.config.mixed import OFF, check_channel_integers
from bitdistiller.export.channels import Channels
from bitdistiller.export.conversion.rewritten import Rewritten
from bitdistiller.export.conversion.unfit import Unfit
from bitdistiller.export.masters import linear_layers
from bitdistiller.formats import largest_level
from bitdistiller.formats.symmetric import EPSILON
from bitdistiller.layers import TensorFiles

ACTIVATION_BITS = 8


class ChannelIntegers(Rewritten):
    """
    A layer's codes as signed integers `q`, and `weight_scale` (out, 1) float32, the float32 reciprocal of what weights
    were multiplied by: `q weight_scale` is the trained value to three units in the 24th bit.

    With 8-bit activations `weight` int8 (out, in), format int-quantized, whose readers quantise the input of every
    token anew; without, `weight_packed` int32 as in `PackQuantized`, `weight_shape`, format pack-quantized.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Raises InputError for a directory without a packed checkpoint, Unfit for what the layout does not hold."""
        super().__init__(checkpoint)
        layout = self.parts.layout
        if not isinstance(layout, Channels):
            held = layout.recipe.quantization.format
            raise Unfit(f"{checkpoint}: layout compressed-tensors is for method llm-qat; {held} is none of its formats")
        self.bits = layout.bits
        try:
            check_channel_integers(self.bits)
        except ValueError as error:
            raise Unfit(f"{checkpoint}: {error}") from None
        self.dynamic = self.bits.activations == ACTIVATION_BITS
        packed = ("weight_packed", "weight_scale", "weight_shape")
        self.suffixes = ("weight", "weight_scale") if self.dynamic else packed

    def layer(self, name: str) -> dict[str, Tensor]:
        codes, scale, _ = self.parts.grid(name)
        signed = (codes.to(torch.int16) - largest_level(self.bits.weights)).to(torch.int8)
        factor = (1 / (scale + EPSILON)).unsqueeze(-1)
        if self.dynamic:
            return {"weight": signed, "weight_scale": factor}
        from compressed_tensors.compressors.pack_quantized import pack_to_int32

        packed = pack_to_int32(signed, self.bits.weights)
        return {"weight_packed": packed, "weight_scale": factor, "weight_shape": torch.tensor(codes.shape)}

    def quantization_config(self) -> dict[str, Any]:
        common = {"type": "int", "symmetric": True}
        group: dict[str, Any] = {"targets": ["Linear"]}
        group["weights"] = common | {"num_bits": self.bits.weights, "strategy": "channel", "dynamic": False}
        if self.dynamic:
            group["input_activations"] = common | {"num_bits": ACTIVATION_BITS, "strategy": "token", "dynamic": True}
        return {
            "quant_method": "compressed-tensors",
            "format": "int-quantized" if self.dynamic else "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": linear_layers(self.checkpoint)[1],
        }

    def sizes(self, directory: Path) -> dict[str, Any]:
        files = TensorFiles(directory)
        stored = sum(files.nbytes(f"{name}.{suffix}") for name in self.parts.layers for suffix in self.suffixes)
        weights = sum(rows * columns for rows, columns in linear_layers(self.checkpoint)[0].values())
        return {"bits_per_weight": 8 * stored / weights, "differs": self._differences()}

    def _differences(self) -> list[str]:
        """What an engine that reads the files does otherwise than the model was trained."""
        lines = []
        if self.dynamic:
            lines.append(
                "the step of an input is max|x| / 127 or max|x| / 127.5, by engine; trained: (max|x| + 1e-6) / 127"
            )
        elif self.bits.activations != OFF:
            lines.append(f"inputs are not quantised; trained: {self.bits.activations} bits")
        if self.bits.cache != OFF:
            lines.append(f"the KV cache is not quantised; trained: {self.bits.cache} bits")
        return lines
