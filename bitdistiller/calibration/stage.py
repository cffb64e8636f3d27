"""The stage `clip`: clip ranges of every layer, block by block (docs/method.md 2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bitdistiller.calibration.clip import SearchOptions, search
from bitdistiller.calibration.collect import GramJob, collect_grams, device, walked_grams
from bitdistiller.calibration.gram import GramOptions
from bitdistiller.calibration.prepare import all_tokens, layers_to_clip, local_texts
from bitdistiller.calibration.ranges import CLIP, clip_tensors, load_clip, save_tensors
from bitdistiller.calibration.report import CLIP_REPORT, describe_layer
from bitdistiller.calibration.shards import GRAMS, check_finished, checked_file, identity_of_inputs, ordered_shards
from bitdistiller.calibration.stored import Gram, add_grams, grams_file
from bitdistiller.calibration.tokens import token_stride
from bitdistiller.calibration.weights import ModelWeights, open_weights
from bitdistiller.config import ClipRecipe
from bitdistiller.formats import get_format
from bitdistiller.stages import Stage, open_stage
from bitdistiller.stages.files import read_json, write_json

logger = logging.getLogger(__name__)


def run(
    recipe: ClipRecipe,
    *,
    model: Path,
    texts: Callable[[], Sequence[str]],
    output: Path,
    work: Path | None,
    time_budget: float | None,
    grams: Sequence[Path] = (),
) -> None:
    """Search the clip ranges of `model`, a Hugging Face directory, on calibration texts.

    With `grams`, the output directories of all shards of `shards.run_shard`, their sums are searched and no activation
    is computed. Else `texts` is called, once over all attempts, and the Grams are taken here. Finished blocks are kept
    in the work directory. Raises InputError when the group size does not divide a layer, no layer is left to clip, the
    texts are too short, or the shards are not those of this calibration.
    """
    check_finished(grams)
    shards = {f"grams-{number:05}": path for number, path in enumerate(grams)}
    with open_stage(
        "clip",
        version=1,
        recipe=recipe,
        inputs={"model": model, **local_texts(recipe.calibration), **shards},
        output=output,
        work=work,
        time_budget=time_budget,
    ) as stage:
        weights = open_weights(model)
        quantization = recipe.quantization
        layers = layers_to_clip(weights, recipe.calibration.skip, quantization.group_size, quantization.pad)
        done = sum(_report_file(stage, index).exists() for index in range(len(layers)))
        if grams:
            stored = ordered_shards(grams, identity_of_inputs(stage, recipe.grams))
            found = _stored(stage, lambda index: [checked_file(path, index) for path in stored], done, len(layers))
        else:
            tokens = all_tokens(recipe.calibration, model, texts, stage.work)
            found = _taken(recipe, stage, weights, layers, tokens, done)
        rate = _search_blocks(recipe, stage, weights, layers, done, found)
        _finish(recipe, stage, len(layers), rate)


def _taken(
    recipe: ClipRecipe, stage: Stage, weights: ModelWeights, layers: list[list[str]], tokens: Tensor, done: int
) -> Iterator[dict[str, Gram]]:
    """The Grams of the blocks after the first `done`, from the model; weighted ones all come before the first."""
    stride = token_stride(tokens, recipe.calibration.tokens)
    options = GramOptions(recipe.quantization.group_size, stride, pad=recipe.quantization.pad)
    job = GramJob(stage, weights, layers, tokens, options, recipe.calibration.importance)
    if job.importance:
        collect_grams(job, stage.work / GRAMS)
        return _stored(stage, lambda index: [grams_file(stage.work / GRAMS, index)], done, len(layers))
    walked = walked_grams(job, done)
    return ({name: Gram(gram.gram(), gram.tokens) for name, gram in grams.items()} for grams in walked)


def _stored(stage: Stage, files: Callable[[int], list[Path]], done: int, blocks: int) -> Iterator[dict[str, Gram]]:
    """The Grams of the blocks after the first `done`, summed over the files of each."""
    for index in range(done, blocks):
        stage.deadline.check()
        yield add_grams(files(index))


def _search_blocks(
    recipe: ClipRecipe,
    stage: Stage,
    weights: ModelWeights,
    layers: list[list[str]],
    done: int,
    found: Iterator[dict[str, Gram]],
) -> float:
    """Search the blocks that no earlier attempt has finished; returns blocks per second."""
    if done == len(layers):
        return 0.0
    with stage.progress("clip", len(layers), done, "block") as bar:
        for index, grams in enumerate(found, start=done):
            names = [f"{weights.name}.{index}.{name}" for name in layers[index]]
            _search_block(recipe, stage, weights, index, names, grams)
            stage.commit()
            bar.advance()
        return bar.rate


def _search_block(
    recipe: ClipRecipe, stage: Stage, weights: ModelWeights, index: int, names: list[str], grams: dict[str, Gram]
) -> None:
    """Search one block and keep its ranges and its report; the report comes last and marks the block as finished."""
    quantization, calibration = recipe.quantization, recipe.calibration
    number_format = get_format(quantization.format, quantization.scale_dtype, pad=quantization.pad)
    options = SearchOptions(calibration.grid_steps, calibration.grid_limit, calibration.refinement)
    tensors: dict[str, Tensor] = {}
    reports: list[dict[str, Any]] = []
    for name in names:
        if name not in grams:
            logger.warning("%s: no calibration token reached it, so it is not clipped", name)
            continue
        weight, gram = weights.tensor(f"{name}.weight").to(device()), grams[name]
        weights.release()
        found = search(weight, gram.matrix, number_format, quantization.group_size, name, options)
        tensors |= clip_tensors(name, found)
        reports.append(describe_layer(name, found, gram.tokens))
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
