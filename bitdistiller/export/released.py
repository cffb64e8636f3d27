"""OneBit checkpoints as its authors released them, written in this project's layout."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitdistiller.config import ExportRecipe, Quantization
from bitdistiller.errors import InputError
from bitdistiller.export.checkpoint import write_checkpoint
from bitdistiller.export.directory import companions, read_config
from bitdistiller.export.files import ShardWriter
from bitdistiller.export.masters import linear_layers
from bitdistiller.export.signs import SignMasters, Signs
from bitdistiller.export.sizes import measure
from bitdistiller.export.verify import compare_tensors
from bitdistiller.formats import unpack_codes
from bitdistiller.layers import VECTORS
from bitdistiller.stages import open_stage
from bitdistiller.stages.files import write_json

logger = logging.getLogger(__name__)

ARCHITECTURE = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
"""What stands in the place of the released classes, which no library has."""
PACKED = "weight"
"""The tensor of a layer that has its signs, int8 (out, in / 8)."""


def run(released: Path, *, output: Path, dtype: str, work: Path | None, time_budget: float | None) -> None:
    """
    Write `checkpoint/` from a released directory (config.json, tokenizer, pytorch_model*.bin or safetensors).

    Signs and vectors stay as they are; other tensors are rounded to `dtype`. Raises InputError for other directories.
    """
    recipe = ExportRecipe(quantization=Quantization(format="sign1"), dtype=dtype)
    config = read_config(released)
    with open_stage(
        "import-onebit",
        version=1,
        recipe=recipe,
        inputs={"released": Path(released)},
        output=output,
        work=work,
        time_budget=time_budget,
    ) as stage:
        masters = ReleasedMasters(Path(released), config, stage.work / "plain", recipe.quantization)
        layout, writer = Signs(recipe), ShardWriter(stage.work)
        checkpoint = stage.output_directory("checkpoint")
        write_checkpoint(masters, layout, checkpoint, writer)
        sizes = measure(masters, layout, checkpoint)
        verified = {"layers": compare_tensors(checkpoint, masters, layout)}
        write_json(stage.output_file("export.json"), recipe.model_dump(mode="json") | sizes | {"verified": verified})
        stage.finish(counts={key: sizes[key] for key in ("quantised_weights", "bits_per_weight", "file_bytes")})
        writer.clear()


class ReleasedMasters(SignMasters):
    """As SignMasters, for a released directory; `plain`: a directory to put its configuration into, as a LLaMA's."""

    origin = "released"

    def __init__(self, released: Path, config: dict[str, Any], plain: Path, quantization: Quantization) -> None:
        """Raises InputError where a layer's tensors are missing or misshapen."""
        self.directory, self.quantization, self._tensors = plain, quantization, _tensors(released)
        plain.mkdir(exist_ok=True)
        write_json(plain / "config.json", config | ARCHITECTURE)
        for path in companions(released):
            (plain / path.name).write_bytes(path.read_bytes())
        self.layers, self.unquantised = linear_layers(plain)
        for layer, shape in self.layers.items():
            self._check(released, layer, shape)

    def _check(self, released: Path, layer: str, shape: tuple[int, int]) -> None:
        rows, columns = shape
        wanted = {PACKED: (rows, columns // 8), "weight_scale": (rows,), "input_factor": (columns,)}
        for kind, expected in wanted.items():
            tensor = self._tensors.get(f"{layer}.{kind}")
            if tensor is None or tuple(tensor.shape) != expected or (tensor.dtype == torch.int8) != (kind == PACKED):
                found = "is missing" if tensor is None else f"is {tensor.dtype} {tuple(tensor.shape)}"
                raise InputError(f"{released}: {layer}.{kind} {found}; accepted: a packed OneBit checkpoint {expected}")

    @property
    def others(self) -> list[str]:
        packed = {f"{layer}.{kind}" for layer in self.layers for kind in (PACKED, *VECTORS)}
        return sorted(name for name in self._tensors if name not in packed)

    def other(self, name: str, dtype: torch.dtype) -> Tensor:
        tensor = self._tensors[name]
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    def quantized(self, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        signs = self._tensors[f"{layer}.{PACKED}"].contiguous().view(torch.uint8)
        scale, factor = (self._tensors[f"{layer}.{kind}"].float() for kind in VECTORS)
        return unpack_codes(signs, 1, len(factor)), scale, factor

    def weight(self, layer: str) -> Tensor:
        return 1.0 - 2.0 * self.quantized(layer)[0].float()


def _tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of the directory's weight files; pickled ones are read as weights alone."""
    from safetensors.torch import load_file

    files = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("pytorch_model*.bin"))
    if not files:
        raise InputError(f"{directory}: no weights; accepted: *.safetensors or pytorch_model*.bin")
    tensors: dict[str, Tensor] = {}
    for path in files:
        pickled = path.suffix == ".bin"
        tensors |= torch.load(path, map_location="cpu", weights_only=True) if pickled else load_file(path)
    return tensors
