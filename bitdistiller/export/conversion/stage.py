"""The stage `convert`: a packed checkpoint in, the same values in another engine's files out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bitdistiller.config import ConvertRecipe, ExportRecipe
from bitdistiller.export.checkpoint import write_checkpoint
from bitdistiller.export.conversion.blocks import BLOCK_TYPES
from bitdistiller.export.conversion.channel_integers import ChannelIntegers
from bitdistiller.export.conversion.dense import DenseCopy
from bitdistiller.export.conversion.gptq import GptqV2
from bitdistiller.export.conversion.rewritten import Rewritten
from bitdistiller.export.conversion.source import PackedMasters
from bitdistiller.export.conversion.unfit import Unfit
from bitdistiller.export.files import ShardWriter
from bitdistiller.export.sizes import measure
from bitdistiller.export.verify import VerificationError
from bitdistiller.layers import TensorFiles
from bitdistiller.stages import Stage, open_stage
from bitdistiller.stages.files import write_json
from bitdistiller.stages.unavailable import mark_unavailable, why_unavailable

logger = logging.getLogger(__name__)

CONVERTED = "checkpoint"
REPORT = "convert.json"
ENGINES = {
    "dense": "any",
    "compressed-tensors": "vLLM, transformers",
    "gptq-v2": "GPTQModel",
    "gguf-q2_0": "llama.cpp",
    "gguf-q4_1": "llama.cpp",
}
"""Who reads each layout."""
REWRITTEN: dict[str, type[Rewritten]] = {"dense": DenseCopy, "compressed-tensors": ChannelIntegers}
"""Layouts that are a model directory of another kind."""


def run(
    recipe: ConvertRecipe,
    *,
    checkpoint: Path,
    output: Path,
    work: Path | None,
    time_budget: float | None,
    mark: bool = False,
) -> None:
    """
    Write the packed `checkpoint` in the layout of the recipe, read it back and compare every value.

    A GGUF file that was not finished is begun again. Raises Unfit where the layout cannot hold the values
    exactly; with `mark` the output then says why in place of the files, and the stage is finished.
    """
    inputs = {"checkpoint": Path(checkpoint)}
    with open_stage(
        "convert", version=1, recipe=recipe, inputs=inputs, output=output, work=work, time_budget=time_budget
    ) as stage:
        directory = stage.output_directory(CONVERTED)
        reason = why_unavailable(checkpoint)
        content: dict[str, Any] = {"layout": recipe.layout, "engine": ENGINES[recipe.layout]}
        try:
            if reason is None:
                content |= _convert(stage, recipe.layout, Path(checkpoint), directory)
        except Unfit as error:
            if not mark:
                raise
            reason = str(error)
        if reason is not None:
            logger.warning("%s: not written: %s", output, reason)
            for path in directory.iterdir():
                path.unlink()
            mark_unavailable(directory, reason)
            content["reason"] = reason
        write_json(stage.output_file(REPORT), content)
        stage.finish(counts={"file_bytes": content["file_bytes"]} if reason is None else {})


def _convert(stage: Stage, layout: str, checkpoint: Path, directory: Path) -> dict[str, Any]:
    if layout in REWRITTEN:
        return _rewrite(stage, REWRITTEN[layout](checkpoint), directory)
    masters = PackedMasters(checkpoint)
    return _gptq(stage, masters, directory) if layout == "gptq-v2" else _gguf(stage, masters, layout, directory)


def _rewrite(stage: Stage, copy: Rewritten, directory: Path) -> dict[str, Any]:
    writer = ShardWriter(stage.work)
    with _progress(stage, len(copy)) as done:
        copy.write(directory, writer, done)
    compared = copy.verify(directory)
    writer.clear()
    size = TensorFiles(directory).total_bytes
    return copy.sizes(directory) | {"file_bytes": size, "verified": {"tensors": compared}}


def _gptq(stage: Stage, masters: PackedMasters, directory: Path) -> dict[str, Any]:
    dtype = "float32" if masters.dtype == torch.float32 else "bfloat16"
    layout, writer = GptqV2(ExportRecipe(quantization=masters.quantization, dtype=dtype)), ShardWriter(stage.work)
    with _progress(stage, len(masters.layers) + len(masters.others)) as done:
        write_checkpoint(masters, layout, directory, writer, done)
    compared = _compare(masters, layout, directory)
    sizes = measure(masters, layout, directory)
    writer.clear()
    return {key: sizes[key] for key in ("bits_per_weight", "file_bytes")} | {"verified": {"tensors": compared}}


def _gguf(stage: Stage, masters: PackedMasters, layout: str, directory: Path) -> dict[str, Any]:
    from bitdistiller.export.conversion.gguf_file import GGUFContents

    blocks = BLOCK_TYPES[layout]
    contents, path = GGUFContents(masters, blocks), directory / "model.gguf"
    with _progress(stage, 2 * len(contents)) as done:
        contents.write(path, done)
        compared = contents.verify(path, done)
    stored = 8 * blocks.bytes / blocks.size
    return {"bits_per_weight": stored, "file_bytes": path.stat().st_size, "verified": {"tensors": compared}}


@contextlib.contextmanager
def _progress(stage: Stage, total: int) -> Iterator[Callable[..., None]]:
    """What to call after every tensor, with whether a shard became durable just then."""
    with stage.progress("convert", total, unit="tensor") as bar:

        def done(durable: bool = False) -> None:
            bar.advance(1)
            if durable:
                stage.commit()
            stage.deadline.check()

        yield done


def _compare(masters: PackedMasters, layout: GptqV2, directory: Path) -> int:
    """Compare what lies in the files with the source; returns the number of tensors and layers compared."""
    files = TensorFiles(directory, layout.stem)
    for layer in masters.layers:
        tensors = {suffix: files.read(f"{layer}.{suffix}") for suffix in layout.suffixes}
        (codes, _, zero_point), (ours, _, our_zero) = layout.decode(tensors), masters.quantized(layer)
        same = torch.equal(codes, ours) and torch.equal(zero_point, our_zero)
        if not same or not torch.equal(layout.dequantize(tensors), masters.values(layer)):
            raise VerificationError(f"{directory}: {layer}: its values differ from the checkpoint's")
    for name in masters.others:
        if not torch.equal(files.read(name), masters.other(name, masters.dtype)):
            raise VerificationError(f"{directory}: {name} differs")
    return len(masters.layers) + len(masters.others)
