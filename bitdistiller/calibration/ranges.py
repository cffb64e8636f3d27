"""Clip ranges as they are stored, and putting them to use."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bitdistiller.calibration.clip import ClipSearch
from bitdistiller.errors import InputError
from bitdistiller.formats.grouping import group_count, join_groups, split_groups
from bitdistiller.stages.files import replace, temporary_name

CLIP = "clip.safetensors"


def clip_tensors(name: str, found: ClipSearch) -> dict[str, Tensor]:
    """`<name>.max` and `<name>.min`, float32 (out, groups, 1), the form that clip.safetensors holds."""
    return {f"{name}.max": found.maximum.float(), f"{name}.min": found.minimum.float()}


def load_clip(path: Path) -> dict[str, Tensor]:
    """The clip ranges in `path`, a clip.safetensors or the output directory of the stage `clip`.

    Raises InputError when there is no such file.
    """
    return load_file(clip_file(path))


def clip_file(path: Path) -> Path:
    """The file of clip ranges: `path` itself, or the one in the output directory of the stage `clip`."""
    file = Path(path) / CLIP if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file; accepted: {CLIP} of the stage clip, or its directory")
    return file


def clip_weight(weight: Tensor, maximum: Tensor, minimum: Tensor, group_size: int | None = None) -> Tensor:
    """A weight (out, in) clamped to the ranges (out, groups, 1) of its groups, in the weight's dtype.

    `group_size` is needed where the last group is not full; the default is that of equal groups.
    """
    groups = split_groups(weight, group_size or weight.shape[1] // maximum.shape[1], pad=True)
    return join_groups(torch.clamp(groups, minimum.to(weight), maximum.to(weight)), weight.shape[1])


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all; equal tensors and metadata give equal bytes."""
    temporary = temporary_name(path)
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, temporary, metadata)
    _sort_metadata(temporary)
    replace(temporary, path)


def _sort_metadata(path: Path) -> None:
    """safetensors writes the metadata in an order that changes from run to run; the header keeps its length."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            file.seek(8)
            file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


@torch.no_grad()
def apply_clip(model: nn.Module, tensors: dict[str, Tensor], group_size: int | None = None) -> list[str]:
    """Clamp a model's weights in place to stored clip ranges; returns the names of the clamped layers.

    `group_size` as in `clip_weight`.
    Raises InputError, before any weight changes, when a layer or one of its ends is missing or has another shape.
    """
    names = sorted({key.rpartition(".")[0] for key in tensors})
    targets = [(name, *_target(model, name, tensors, group_size)) for name in names]
    for _, weight, maximum, minimum in targets:
        weight.copy_(clip_weight(weight, maximum, minimum, group_size))
    return names


def _target(
    model: nn.Module, name: str, tensors: dict[str, Tensor], group_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    try:
        weight, maximum, minimum = model.get_submodule(name).weight, tensors[f"{name}.max"], tensors[f"{name}.min"]
    except (AttributeError, KeyError) as missing:
        raise InputError(f"clip ranges: {name}: the model or the file does not have it ({missing})") from None
    fits = maximum.shape == minimum.shape and maximum.ndim == 3 and maximum.shape[::2] == (len(weight), 1)
    groups = maximum.shape[1] if fits else 0
    whole = groups and weight.shape[1] % groups == 0
    if not (whole if group_size is None else groups == group_count(weight.shape[1], group_size)):
        raise InputError(f"clip ranges: {name}: shape {tuple(maximum.shape)} for a weight of {tuple(weight.shape)}")
    return weight, maximum, minimum
