"""What GPTQ and AWQ share: llm-compressor's one-shot run and reading the codes it would store."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from bitdistiller.baselines.base import Chosen, Refusal, Result, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARIES = ("llmcompressor", "compressed-tensors")
BATCH_SIZE = 8


def scheme(task: Task) -> dict[str, Any]:
    """The quantisation options of every modifier: asymmetric integers in groups, only the task's layers."""
    weights = {
        "num_bits": task.bits,
        "type": "int",
        "symmetric": False,
        "strategy": "group",
        "group_size": task.quantization.group_size,
    }
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": task.others}


def compress(task: Task, modifiers: list[Any]) -> Result:
    """Run `modifiers` on the task's model, in place, on all of its calibration tokens in their order."""
    from llmcompressor import oneshot
    from torch.utils.data import DataLoader

    samples = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in task.tokens]
    with _no_pinning_without_accelerator():
        oneshot(
            model=task.model,
            recipe=modifiers,
            dataset=DataLoader(samples, batch_size=BATCH_SIZE),
            num_calibration_samples=len(samples),
            max_seq_length=task.tokens.shape[1],
            shuffle_calibration_samples=False,
        )
    return Result(task.model, lambda name: _chosen(task, name))


def _chosen(task: Task, name: str) -> Chosen:
    """The signed codes that the library's own packing would store, counted from zero."""
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize, quantize

    module = task.model.get_submodule(name)
    if getattr(module, "quantization_scheme", None) is None:
        raise Refusal(f"{name} was left unquantised")
    arguments = module.quantization_scheme.weights
    grid = module.weight_scale, module.weight_zero_point
    with torch.no_grad():
        codes = quantize(module.weight, *grid, arguments, dtype=torch.int8)
        weight = fake_quantize(module.weight, *grid, arguments)
    first = 2 ** (task.bits - 1)
    return Chosen(
        (codes.to(torch.int16) + first).to(torch.uint8),
        module.weight_scale.detach(),
        module.weight_zero_point.to(torch.int32) + first,
        weight,
    )


@contextmanager
def _no_pinning_without_accelerator() -> Iterator[None]:
    """AWQ pins its samples, to copy them to an accelerator faster; torch refuses where there is none."""
    from llmcompressor.pipelines.cache import IntermediatesCache

    if torch.accelerator.is_available():
        yield
        return
    original = IntermediatesCache.pin_memory
    IntermediatesCache.pin_memory = lambda *arguments, **options: None
    try:
        yield
    finally:
        IntermediatesCache.pin_memory = original
