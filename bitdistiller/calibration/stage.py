"""The stage `clip`: clip ranges of every layer, block by block (docs/method.md 2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bitdistiller.calibration.activations import ActivationWalk
from bitdistiller.calibration.clip import search
from bitdistiller.calibration.ranges import CLIP, clip_tensors, load_clip, save_tensors
from bitdistiller.calibration.report import CLIP_REPORT, describe_layer
from bitdistiller.calibration.tokens import calibration_tokens
from bitdistiller.config import Calibration, ClipRecipe
from bitdistiller.errors import InputError
from bitdistiller.formats import get_format, resolve_group_size
from bitdistiller.layers import block_linears, decoder_blocks
from bitdistiller.stages import Stage, open_stage
from bitdistiller.stages.files import read_json, write_json

logger = logging.getLogger(__name__)

TOKENS = "tokens.safetensors"


def run(
    recipe: ClipRecipe,
    *,
    model: Path,
    texts: Callable[[], Sequence[str]],
    output: Path,
    work: Path | None,
    time_budget: float | None,
) -> None:
    """Search the clip ranges of `model`, a Hugging Face directory, on calibration texts.

    `texts` is called only when no earlier attempt left its tokens in the work directory. Finished blocks are kept
    there too: a later attempt takes the activations through them again but searches only the others. Raises
    InputError when the group size does not divide a layer, no layer is left to clip, or the texts are too short.
    """
    local = {"texts": recipe.calibration.path} if recipe.calibration.path else {}
    with open_stage(
        "clip",
        version=1,
        recipe=recipe,
        inputs={"model": model, **local},
        output=output,
        work=work,
        time_budget=time_budget,
    ) as stage:
        tokens = _tokens(recipe.calibration, model, texts, stage.work / TOKENS)
        network = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
        layers = _layers_to_clip(network, recipe)
        rate = _search_blocks(recipe, stage, network, layers, tokens)
        _finish(recipe, stage, len(layers), rate)


def _tokens(calibration: Calibration, model: Path, texts: Callable[[], Sequence[str]], kept: Path) -> Tensor:
    """The calibration tokens (n, length), of an earlier attempt where there was one."""
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


def _layers_to_clip(model: nn.Module, recipe: ClipRecipe) -> list[list[str]]:
    """For every block the names of its layers to clip; all layers must fit the group size."""
    prefix, blocks = decoder_blocks(model)
    layers = []
    for index, block in enumerate(blocks):
        for name, linear in block_linears(block):
            resolve_group_size(linear.in_features, recipe.quantization.group_size, f"{prefix}.{index}.{name}")
        layers.append([name for name, _ in block_linears(block) if not is_skipped(name, recipe.calibration.skip)])
    if not any(layers):
        raise InputError(f"calibration.skip: {', '.join(recipe.calibration.skip)} leaves no layer to clip")
    return layers


def is_skipped(name: str, patterns: Sequence[str]) -> bool:
    """Patterns are looked for in the projection's own name only: `block_sparse_moe.w1` is not a `k_` projection."""
    return any(pattern in name.rpartition(".")[2] for pattern in patterns)


def _search_blocks(
    recipe: ClipRecipe, stage: Stage, model: nn.Module, layers: list[list[str]], tokens: Tensor
) -> float:
    """Search the blocks that no earlier attempt has finished; returns blocks per second."""
    kept = recipe.calibration.tokens
    stride = max(1, tokens.numel() // kept) if kept else 1
    done = sum(_report_file(stage, index).exists() for index in range(len(layers)))
    if done == len(layers):
        return 0.0
    with stage.progress("clip", len(layers), done, "block") as bar:
        walk = ActivationWalk(model, tokens, "cuda" if torch.cuda.is_available() else "cpu")
        for _ in range(done):
            walk.step()
        for names in layers[done:]:
            stage.deadline.check()
            _search_block(recipe, stage, walk, names, stride)
            stage.commit()
            bar.advance()
        return bar.rate


def _search_block(recipe: ClipRecipe, stage: Stage, walk: ActivationWalk, names: list[str], stride: int) -> None:
    """Search one block and keep its ranges and its report; the report comes last and marks the block as finished."""
    quantization, index = recipe.quantization, walk.position
    number_format = get_format(quantization.format, scale_dtype=quantization.scale_dtype)
    grams = walk.step(names, quantization.group_size, stride)
    tensors: dict[str, Tensor] = {}
    reports: list[dict[str, Any]] = []
    for name in names:
        full_name, linear = f"{walk.name}.{index}.{name}", walk.blocks[index].get_submodule(name)
        if name not in grams:
            logger.warning("%s: no calibration token reached it, so it is not clipped", full_name)
            continue
        weight = linear.weight.detach().to(walk.device)
        found = search(weight, grams[name].gram(), number_format, quantization.group_size, full_name)
        tensors |= clip_tensors(full_name, found)
        reports.append(describe_layer(full_name, found, grams[name].tokens))
    save_tensors(_ranges_file(stage, index), tensors)
    write_json(_report_file(stage, index), reports)


def _finish(recipe: ClipRecipe, stage: Stage, blocks: int, rate: float) -> None:
    tensors: dict[str, Tensor] = {}
    reports: list[dict[str, Any]] = []
    for index in range(blocks):
        tensors |= load_clip(_ranges_file(stage, index))
        reports += read_json(_report_file(stage, index))
    tokens = max(report["tokens"] for report in reports)
    origin = {"tokens": tokens, "model": stage.fingerprint["inputs"]["model"]}
    metadata = recipe.quantization.model_dump(mode="json") | origin
    save_tensors(stage.output_file(CLIP), tensors, {key: str(value) for key, value in metadata.items()})
    write_json(stage.output_file(CLIP_REPORT), metadata | {"layers": reports})
    stage.finish(counts={"layers": len(reports), "tokens": tokens}, details={"blocks_per_second": rate})


def _ranges_file(stage: Stage, block: int) -> Path:
    return stage.work / f"block-{block:04}.safetensors"


def _report_file(stage: Stage, block: int) -> Path:
    return stage.work / f"block-{block:04}.json"
