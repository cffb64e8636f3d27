"""What every calibration job begins with: the tokens, and the layers that they are taken to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from bitdistiller.calibration.ranges import save_tensors
from bitdistiller.calibration.tokens import calibration_tokens
from bitdistiller.calibration.weights import ModelWeights
from bitdistiller.config import Calibration
from bitdistiller.errors import InputError
from bitdistiller.formats import resolve_group_size
from bitdistiller.layers import block_linears

logger = logging.getLogger(__name__)

TOKENS = "tokens.safetensors"


def local_texts(calibration: Calibration) -> dict[str, Path]:
    """The local file of calibration texts as a stage input, where there is one."""
    return {"texts": calibration.path} if calibration.path else {}


def all_tokens(calibration: Calibration, model: Path, texts: Callable[[], Sequence[str]], work: Path) -> Tensor:
    """The calibration tokens (n, length), from `work` where an earlier attempt left them there."""
    kept = work / TOKENS
    if kept.exists():
        return load_file(kept)["tokens"]
    context = AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings
    tokens = calibration_tokens(
        texts(),
        AutoTokenizer.from_pretrained(model),
        samples=calibration.samples,
        sequence_length=min(calibration.block_length, context),
        max_tokens_per_text=calibration.max_text_tokens,
    )
    logger.info("calibration: %d sequences of %d tokens", *tokens.shape)
    save_tensors(kept, {"tokens": tokens})
    return tokens


def layers_to_clip(weights: ModelWeights, skip: Sequence[str], group_size: int, pad: bool = False) -> list[list[str]]:
    """For every block the names of its layers to clip; all layers must fit the group size."""
    layers = []
    for index, block in enumerate(weights.blocks):
        for name, linear in block_linears(block):
            resolve_group_size(linear.in_features, group_size, f"{weights.name}.{index}.{name}", pad)
        layers.append([name for name, _ in block_linears(block) if not is_skipped(name, skip)])
    if not any(layers):
        raise InputError(f"calibration.skip: {', '.join(skip)} leaves no layer to clip")
    return layers


def is_skipped(name: str, patterns: Sequence[str]) -> bool:
    """Patterns are looked for in the projection's own name only: `block_sparse_moe.w1` is not a `k_` projection."""
    return any(pattern in name.rpartition(".")[2] for pattern in patterns)
