"""Proof that a written checkpoint is the fake-quantised model: every layer, and the logits in a fresh process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitdistiller.config import ExportRecipe
from bitdistiller.export.chosen import open_masters
from bitdistiller.export.fresh_process import FreshProcess, fingerprints
from bitdistiller.export.layout import Layout
from bitdistiller.export.masters import Masters
from bitdistiller.export.registry import get_layout
from bitdistiller.layers import TensorFiles

logger = logging.getLogger(__name__)

SEQUENCES, LENGTH, SEED = 2, 32, 0


class VerificationError(RuntimeError):
    """A written checkpoint differs from the model it was made of."""


def verify_checkpoint(
    checkpoint: Path, weights: Path, clip: Path | None, recipe: ExportRecipe, fresh_process: bool = True
) -> dict[str, Any]:
    """
    Compare a packed checkpoint with the fake-quantised model it was made of.

    In this process: the codes and the dequantised values of every layer, and every other tensor. In a fresh process
    (unless `fresh_process` is false; it costs the import of transformers): every parameter after loading, by hash, and
    the logits on fixed random tokens. Returns what was compared. Raises VerificationError naming the first difference.
    """
    masters, layout = open_masters(weights, recipe.quantization, clip), get_layout(recipe)
    report = {"layers": compare_tensors(checkpoint, masters, layout), "fresh_process": None} | masters.checks
    if fresh_process:
        report["fresh_process"] = compare_models(checkpoint, masters, layout)
    return report


def compare_tensors(checkpoint: Path, masters: Masters, layout: Layout) -> int:
    """Compare everything in the files with the masters, layer by layer; returns the number of quantised layers."""
    files, dtype = TensorFiles(checkpoint, layout.stem), getattr(torch, layout.recipe.dtype)
    for layer in masters.layers:
        tensors = {suffix: files.read(f"{layer}.{suffix}") for suffix in layout.suffixes}
        for name, ours, theirs in zip(
            ("codes", "scales", "zero points"), masters.quantized(layer), layout.decode(tensors), strict=True
        ):
            _require(_same(ours, theirs), f"{checkpoint}: {layer}: {name} differ from the quantised weight's")
        expected = masters.fake_quantized(layer, dtype)
        _require(_same(expected, layout.dequantize(tensors).to(dtype)), f"{checkpoint}: {layer}: values differ")
    for name in masters.others:
        _require(_same(files.read(name), masters.other(name, dtype)), f"{checkpoint}: {name} differs")
    return len(masters.layers)


def compare_models(checkpoint: Path, masters: Masters, layout: Layout) -> dict[str, Any]:
    """Compare the model as a fresh process loads it with the fake-quantised one: parameters by hash, and logits."""
    with FreshProcess(checkpoint) as process:
        model = masters.model(getattr(torch, layout.recipe.dtype)).eval()
        tokens = random_tokens(model.config)
        with torch.inference_mode():
            expected = model(tokens).logits
        hashes = fingerprints(model)
        del model
        logits, found = process.answer(tokens)
    for name in sorted(hashes | found):
        _require(hashes.get(name) == found.get(name), f"{checkpoint}: {name} differs after loading")
    difference = float((logits.float() - expected.float()).abs().max())
    limit = 2 * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    _require(difference <= limit, f"{checkpoint}: logits differ by {difference} after loading")
    return {"parameters": len(hashes), "logits_equal": torch.equal(logits, expected), "max_difference": difference}


def random_tokens(config: Any) -> Tensor:
    """Fixed random token ids (sequences, length) for a model with this configuration."""
    length = min(LENGTH, getattr(config, "max_position_embeddings", LENGTH))
    return torch.randint(config.vocab_size, (SEQUENCES, length), generator=torch.Generator().manual_seed(SEED))


def _same(ours: Tensor | None, theirs: Tensor | None) -> bool:
    return (ours is None and theirs is None) or torch.equal(ours, theirs)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise VerificationError(message)
