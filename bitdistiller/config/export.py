"""Packing."""

from __future__ import annotations

from bitdistiller.config.base import Dtype, LayoutName, Section
from bitdistiller.config.calibration import Quantization


class ExportRecipe(Section):
    """Everything the stage `export` needs."""

    quantization: Quantization
    dtype: Dtype = "bfloat16"
    """Precision of the weights that are not quantised, and of the model when it is loaded."""


class ConvertRecipe(Section):
    """Everything the stage `convert` needs."""

    layout: LayoutName
    """dense: dequantised, for engines that read no packed weights; compressed-tensors: llm-qat for vLLM; gptq-v2 for
    GPTQModel; gguf-q2_0 (int2), gguf-q4_1 for llama.cpp (docs/formats.md)."""
