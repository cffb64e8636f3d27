"""Writing a packed checkpoint, layer by layer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from bitdistiller.export.directory import companions, read_config
from bitdistiller.export.files import ShardWriter
from bitdistiller.export.layout import Layout
from bitdistiller.export.masters import Masters
from bitdistiller.stages.files import write_json


def write_checkpoint(
    masters: Masters,
    layout: Layout,
    directory: Path,
    writer: ShardWriter,
    done: Callable[[bool], None] = lambda durable: None,
) -> None:
    """
    Write a complete model directory; `directory` exists and is empty.

    Goes on after the shards `writer` has finished already. `done` is called after every layer and every other tensor,
    and told whether a shard became durable just then.
    """
    dtype = getattr(torch, layout.recipe.dtype)
    for layer in masters.layers:
        known = f"{layer}.{layout.suffixes[0]}" in writer
        done(False if known else writer.add(_packed(masters, layout, layer)))
    for name in masters.others:
        done(False if name in writer else writer.add({name: masters.other(name, dtype)}))
    writer.publish(directory, layout.stem)
    write_json(directory / "config.json", packed_config(masters, layout))
    for path in companions(masters.directory):
        shutil.copyfile(path, directory / path.name)


def packed_config(masters: Masters, layout: Layout) -> dict[str, object]:
    """The masters' config.json with the dtype of the recipe and a `quantization_config`."""
    config = read_config(masters.directory)
    config.pop("torch_dtype", None)
    quantization = layout.quantization_config(masters.unquantised)
    return config | {"dtype": layout.recipe.dtype, "quantization_config": quantization}


def _packed(masters: Masters, layout: Layout, layer: str) -> dict[str, torch.Tensor]:
    tensors = layout.encode(*masters.quantized(layer))
    return {f"{layer}.{suffix}": tensor for suffix, tensor in tensors.items()}
