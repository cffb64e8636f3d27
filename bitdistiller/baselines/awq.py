"""AWQ (Lin et al., arXiv 2306.00978) by llm-compressor: scaled channels, then round-to-nearest; no weight clipping."""

from __future__ import annotations

from bitdistiller.baselines.base import Result, Task
from bitdistiller.baselines.llm_compressor import LIBRARIES, compress, scheme

__all__ = ["LIBRARIES", "quantise"]


def quantise(task: Task) -> Result:
    """The library's defaults: its own table of layers for the architecture, 20 steps, activations and weights."""
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    return compress(task, [AWQModifier(), QuantizationModifier(**scheme(task))])
