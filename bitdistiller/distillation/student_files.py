"""The directory `student/`: master weights under their usual names, what trained beside them, and the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from bitdistiller.calibration.ranges import save_tensors
from bitdistiller.config import Quantization
from bitdistiller.layers import GRID_STEM, GRID_TENSORS, VECTOR_STEM, VECTORS
from bitdistiller.stages.files import write_json

RECORD = "bitdistiller.json"
State = dict[str, Tensor]


def split_state(state: State) -> tuple[State, State]:
    """The state dict of a fake-quantised student as (masters, trained scales and zero points; empty without them)."""
    grids = {f"{layer}.{kind}" for layer in trained_layers(state) for kind in GRID_TENSORS}
    masters = {name: tensor for name, tensor in state.items() if name not in grids}
    return masters, {name: state[name] for name in sorted(grids)}


def split_vectors(state: State) -> tuple[State, State]:
    """The state dict of a 1-bit student as (latent weights and all that is ordinary, both vectors of every layer)."""
    marks = tuple(f".{kind}" for kind in VECTORS)
    vectors = {name: tensor for name, tensor in state.items() if name.endswith(marks)}
    return {name: tensor for name, tensor in state.items() if name not in vectors}, vectors


def trained_layers(state: State) -> list[str]:
    """Names of the layers that have a weight, a scale and a zero point in a state dict."""
    layers = [name.removesuffix(".zero_point") for name in state if name.endswith(".zero_point")]
    return [layer for layer in layers if f"{layer}.scale" in state and f"{layer}.weight" in state]


def write_student(model: Any, state: State, directory: Path, quantization: Quantization) -> None:
    """
    Write a student from its whole state dict (tensors on the CPU), as export and evaluation read it.

    `model`: the transformers model whose configuration, tied weights and generation defaults the files get; its own
    tensors are not looked at. `directory` exists. Without trained scales the directory is as it was before they were.
    """
    if quantization.signs:
        latents, vectors = split_vectors(state)
        model.save_pretrained(directory, state_dict=latents)
        save_tensors(directory / f"{VECTOR_STEM}.safetensors", vectors)
        write_json(directory / RECORD, quantization.record)
        return
    masters, grids = split_state(state)
    model.save_pretrained(directory, state_dict=masters)
    write_record(directory, grids, quantization)


def write_record(directory: Path, grids: State, quantization: Quantization) -> None:
    """`bitdistiller.json` and, where there are trained grids, `scales.safetensors`."""
    record = quantization.record
    if grids:
        save_tensors(directory / f"{GRID_STEM}.safetensors", grids)
        record["train_scales"] = True
    write_json(directory / RECORD, record)
