"""The weights that a library chose, in a file of our own: nothing is rounded again before it is packed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bitdistiller.baselines.base import Chosen, Refusal, Result, affine_values
from bitdistiller.calibration.ranges import save_tensors
from bitdistiller.config import Quantization
from bitdistiller.errors import InputError
from bitdistiller.formats import get_format, pack_codes, unpack_codes
from bitdistiller.layers import TensorFiles
from bitdistiller.stages.files import read_json, write_json

STEM = "chosen"
RECORD = "chosen.json"
SUFFIXES = ("codes", "scale", "zero_point")


def write_values(
    directory: Path, original: TensorFiles, layers: tuple[str, ...], result: Result, quantization: Quantization
) -> int:
    """
    Write `chosen.safetensors` with `<layer>.codes` (packed densely), `.scale` (float32) and `.zero_point` (int32) of
    every layer, and every other tensor: the original one, or the library's where that differs.

    Returns how many others differ. Raises Refusal when a layer has values that are not finite, RuntimeError when a
    layer's codes do not give back the weight that the library multiplies with, bit for bit.
    """
    bits = get_format(quantization.format).bits
    tensors: dict[str, Tensor] = {}
    for name in layers:
        codes, scale, zero_point, _ = checked(result.layer(name), bits, quantization.scale_dtype, name)
        tensors |= {f"{name}.codes": pack_codes(codes.cpu(), bits), f"{name}.scale": scale.float()}
        tensors[f"{name}.zero_point"] = zero_point
    quantised = {f"{name}.weight" for name in layers}
    state = result.model.state_dict()
    others = {name: original.read(name) for name in original.names if name not in quantised}
    changed = {name: state[name].cpu() for name, tensor in others.items() if _differs(tensor, state.get(name))}
    save_tensors(directory / f"{STEM}.safetensors", tensors | others | changed)
    write_json(directory / RECORD, quantization.model_dump(mode="json") | {"layers": list(layers)})
    return len(changed)


def checked(chosen: Chosen, bits: int, scale_dtype: str, name: str) -> Chosen:
    """What a library chose, proven: finite, in range, exact in `scale_dtype`, and equal to the weight it uses."""
    codes, scale, zero_point, weight = chosen
    if not (torch.isfinite(scale).all() and torch.isfinite(weight).all()):
        raise Refusal(f"values of {name} are not finite")
    top = 2**bits - 1
    exact = torch.equal(scale.float(), scale.to(getattr(torch, scale_dtype)).float())
    if int(codes.max()) > top or int(zero_point.min()) < 0 or int(zero_point.max()) > top or not exact:
        raise RuntimeError(f"{name}: codes, zero points or scales do not fit {bits} bits and {scale_dtype}")
    if not torch.equal(affine_values(codes, scale, zero_point, weight.dtype) + 0.0, weight + 0.0):
        raise RuntimeError(f"{name}: codes, scales and zero points do not give the library's weight")
    return chosen


class ChosenValues:
    """The file that `write_values` wrote, read one layer at a time."""

    def __init__(self, directory: Path, quantization: Quantization) -> None:
        """Raises InputError when it was made for another quantization."""
        record = read_json(directory / RECORD)
        for key, value in quantization.model_dump(mode="json").items():
            if record[key] != value:
                raise InputError(
                    f"quantization.{key}: {value} was asked for, but the weights in {directory} are {record[key]}"
                )
        self.layers: list[str] = record["layers"]
        self.files = TensorFiles(directory, STEM)
        self._bits, self._group_size = get_format(quantization.format).bits, quantization.group_size

    @property
    def others(self) -> list[str]:
        """Names of the tensors that belong to no quantised layer, in the order of the file."""
        parts = {f"{layer}.{suffix}" for layer in self.layers for suffix in SUFFIXES}
        return [name for name in self.files.names if name not in parts]

    def layer(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (out, in) uint8, scale (out, groups) float32, zero point (out, groups) int32."""
        codes, scale, zero_point = (self.files.read(f"{name}.{suffix}") for suffix in SUFFIXES)
        return unpack_codes(codes, self._bits, scale.shape[1] * self._group_size), scale, zero_point


def holds_values(directory: Path) -> bool:
    """Whether a directory was written by `write_values`."""
    return (Path(directory) / RECORD).is_file()


def _differs(original: Tensor, found: Tensor | None) -> bool:
    return found is not None and not torch.equal(original.to(found.dtype), found.cpu())
