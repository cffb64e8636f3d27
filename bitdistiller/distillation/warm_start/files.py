"""What a warm start leaves behind: the tensors of every block by their names in the fake-quantised student."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from bitdistiller.errors import InputError
from bitdistiller.layers import TensorFiles
from bitdistiller.stages.files import write_json

START = "start"
"""Directory of the tensors in the output, and the stem of their files."""


def block_file(work: Path, index: int) -> Path:
    """Where the tensors of a finished block are kept; its report lies beside it as JSON."""
    return work / f"block-{index:04d}.safetensors"


def publish(work: Path, directory: Path, names: list[list[str]]) -> None:
    """Give the files of all blocks their places in `directory`, with an index; `names`: the tensors of each block."""
    count, weight_map, total = len(names), {}, 0
    for index, tensors in enumerate(names):
        file = f"{START}-{index + 1:05d}-of-{count:05d}.safetensors"
        os.link(block_file(work, index), directory / file)
        weight_map |= dict.fromkeys(tensors, file)
        total += (directory / file).stat().st_size
    write_json(directory / f"{START}.safetensors.index.json", {"metadata": {"bytes": total}, "weight_map": weight_map})


@torch.no_grad()
def apply_warm_start(model: nn.Module, directory: Path) -> list[str]:
    """
    Set the parameters of a fake-quantised student to those in the output `directory` of the stage `warm-start`.

    Returns their names. Raises InputError, before any parameter changes, where the directory holds another model's
    parameters, others of the grids than the student has (`train_scales` of the two recipes differs), or shapes that
    do not fit (another group size).
    """
    path = Path(directory) / START
    files, parameters = TensorFiles(path, START), dict(model.named_parameters())
    for name in files.names:
        if name not in parameters:
            raise InputError(f"{path}: {name} is no parameter of this student; do model and train_scales fit?")
        found, wanted = files.shape(name), tuple(parameters[name].shape)
        if found != wanted:
            raise InputError(f"{path}: {name}: shape {found}; this student needs {wanted}")
    left_out = [name for name in parameters if name.endswith((".scale", ".zero_point")) and name not in files]
    if left_out:
        raise InputError(f"{path}: {left_out[0]} is missing; it was made without train_scales")
    for name in files.names:
        parameters[name].copy_(files.read(name))
    files.close()
    return files.names


def state_of(block: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The parameters of a block by their full names, on the CPU."""
    return {f"{prefix}.{name}": parameter.detach().cpu() for name, parameter in block.named_parameters()}
