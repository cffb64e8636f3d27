"""The sizes of a model that decide its memory, read from its configuration alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from bitdistiller.layers import decoder_blocks


@dataclass(frozen=True)
class Shapes:
    """Counts of parameters and the widths of a decoder."""

    parameters: int
    """All parameters, tied ones once."""
    head_parameters: int
    """Of the output embedding (vocabulary x hidden size), tied or not."""
    block_parameters: int
    """Of the largest decoder block."""
    linear_parameters: int
    """Of the linear layers of all blocks: those that are quantised."""
    block_linear_parameters: int
    """Of the linear layers of the largest block."""
    largest_linear: int
    layers: int
    hidden: int
    intermediate: int
    attention: int
    """Width of all query heads together."""
    heads: int
    vocabulary: int
    attention_kind: str
    """transformers' attention implementation: sdpa, eager, ..."""

    @property
    def outer_parameters(self) -> int:
        """Parameters outside of the blocks: embeddings, head, last norm."""
        return self.parameters - self.layers * self.block_parameters

    @classmethod
    def read(cls, model: Path) -> Shapes:
        """The shapes of a model directory; builds the model without memory (on the meta device)."""
        return cls.of(AutoConfig.from_pretrained(model))

    @classmethod
    def of(cls, config: object) -> Shapes:
        """The shapes of a transformers configuration."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        text = model.config.get_text_config()
        _, blocks = decoder_blocks(model)
        linears = [_linears(block) for block in blocks]
        hidden, heads = text.hidden_size, text.num_attention_heads
        head = model.get_output_embeddings()
        widest = max(max(linear.weight.shape) for block in linears for linear in block)
        return cls(
            parameters=_count(model),
            head_parameters=head.weight.numel() if head is not None else 0,
            block_parameters=max(map(_count, blocks)),
            linear_parameters=sum(map(_weights, linears)),
            block_linear_parameters=max(map(_weights, linears)),
            largest_linear=max(linear.weight.numel() for block in linears for linear in block),
            layers=len(blocks),
            hidden=hidden,
            intermediate=getattr(text, "intermediate_size", None) or widest,
            attention=heads * (getattr(text, "head_dim", None) or hidden // heads),
            heads=heads,
            vocabulary=text.vocab_size,
            attention_kind=getattr(model.config, "_attn_implementation", None) or "sdpa",
        )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _linears(block: nn.Module) -> list[nn.Linear]:
    return [module for module in block.modules() if isinstance(module, nn.Linear)]


def _weights(linears: list[nn.Linear]) -> int:
    return sum(linear.weight.numel() for linear in linears)
