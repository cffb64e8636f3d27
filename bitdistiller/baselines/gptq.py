"""GPTQ (Frantar et al., arXiv 2210.17323) by llm-compressor."""

from __future__ import annotations

from bitdistiller.baselines.base import Result, Task
from bitdistiller.baselines.llm_compressor import LIBRARIES, compress, scheme

__all__ = ["LIBRARIES", "quantise"]


def quantise(task: Task) -> Result:
    """The library's defaults: columns in order of activation, groups where they are, damping 0.01, blocks of 128."""
    from llmcompressor.modifiers.gptq import GPTQModifier

    return compress(task, [GPTQModifier(**scheme(task))])
