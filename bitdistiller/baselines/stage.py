"""The stage `baseline`: a quantisation library chooses codes, scales and zero points; runs in its own environment."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitdistiller.baselines.base import Refusal, Task, refusals, versions
from bitdistiller.baselines.registry import get_baseline
from bitdistiller.baselines.values import write_values
from bitdistiller.calibration.prepare import all_tokens, local_texts
from bitdistiller.config import BaselineRecipe
from bitdistiller.errors import InputError
from bitdistiller.formats import resolve_group_size
from bitdistiller.layers import TensorFiles, quantized_linear_names
from bitdistiller.stages import open_stage
from bitdistiller.stages.files import write_json
from bitdistiller.stages.unavailable import mark_unavailable

logger = logging.getLogger(__name__)

QUANTISED = "quantised"
REPORT = "baseline.json"
WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")


def run(
    recipe: BaselineRecipe,
    *,
    model: Path,
    texts: Callable[[], Sequence[str]],
    output: Path,
    work: Path | None,
    time_budget: float | None,
) -> None:
    """Let a library quantise `model`, a Hugging Face directory, on the calibration texts that the stage `clip` takes.

    The model is loaded in `scale_dtype`, in which the libraries also keep the scales. What a library cannot do is a
    result too: `quantised/` then holds the reason. A killed run starts over. Raises InputError when the group size
    does not divide a layer, the texts are too short, or the library is not installed.
    """
    baseline = get_baseline(recipe.method)
    installed = _installed(baseline)
    with open_stage(
        "baseline",
        version=1,
        recipe=recipe,
        inputs={"model": model, **local_texts(recipe.calibration)},
        output=output,
        work=work,
        time_budget=time_budget,
    ) as stage:
        stage.deadline.check()
        task = _task(recipe, model, texts, stage.work)
        directory = stage.output_directory(QUANTISED)
        report = recipe.model_dump(mode="json", include={"method", "quantization"})
        report |= {"libraries": installed, "reason": None, "changed_others": 0}
        try:
            with refusals():
                result = baseline.quantise(task)
            report["changed_others"] = write_values(
                directory, TensorFiles(model), task.layers, result, recipe.quantization
            )
            _copy_companions(model, directory)
        except Refusal as refusal:
            report["reason"] = f"{installed}: {refusal}"
            logger.warning("%s: not available: %s", recipe.method, report["reason"])
            mark_unavailable(directory, report["reason"])
        write_json(stage.output_file(REPORT), report)
        stage.finish(counts={"layers": len(task.layers), "tokens": task.tokens.numel()})


def _installed(baseline: ModuleType) -> str:
    try:
        return versions(*baseline.LIBRARIES)
    except ModuleNotFoundError as error:
        raise InputError(
            f"baseline: {error.name} is not installed here; `make baselines` makes an environment, .venv-baselines"
        ) from None


def _task(recipe: BaselineRecipe, model: Path, texts: Callable[[], Sequence[str]], work: Path) -> Task:
    network = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, recipe.quantization.scale_dtype)).eval()
    layers = tuple(quantized_linear_names(network))
    for name in layers:
        resolve_group_size(network.get_submodule(name).in_features, recipe.quantization.group_size, name)
    tokens, tokenizer = all_tokens(recipe.calibration, model, texts, work), AutoTokenizer.from_pretrained(model)
    torch.manual_seed(recipe.calibration.seed)
    return Task(network, tokenizer, tokens, layers, recipe.quantization, recipe.calibration.seed)


def _copy_companions(model: Path, directory: Path) -> None:
    """Everything of the model directory but its weights: configuration, tokenizer, licence."""
    for path in sorted(model.iterdir()):
        weights = path.suffix in WEIGHTS or ".safetensors" in path.name
        if path.is_file() and not path.name.startswith(".") and not weights:
            shutil.copyfile(path, directory / path.name)
