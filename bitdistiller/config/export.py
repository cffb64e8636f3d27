"""Packing."""

from __future__ import annotations

from bitdistiller.config.base import Dtype, Section
from bitdistiller.config.calibration import Quantization


class ExportRecipe(Section):
    """Everything the stage `export` needs."""

    quantization: Quantization
    dtype: Dtype = "bfloat16"
    """Precision of the weights that are not quantised, and of the model when it is loaded."""
