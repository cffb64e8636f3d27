"""How large a written checkpoint is, beside what its number format would take at least."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitdistiller.export.layout import Layout
from bitdistiller.export.masters import Masters
from bitdistiller.layers import TensorFiles


def measure(masters: Masters, layout: Layout, directory: Path) -> dict[str, Any]:
    """
    Bits per weight of every quantised layer and of all of them, and bytes of the weight files.

    Stored bits count all of a layer's tensors: codes, scales, zero points, shape. The minimum is the number format's
    own, scales in `scale_dtype`, for the quantised weights, and the stored bytes of the other tensors.
    """
    files = TensorFiles(directory, layout.stem)
    layers: dict[str, Any] = {}
    for layer, (rows, columns) in masters.layers.items():
        stored = sum(files.nbytes(f"{layer}.{suffix}") for suffix in layout.suffixes)
        layers[layer] = {"shape": [rows, columns], "bytes": stored, "bits_per_weight": 8 * stored / (rows * columns)}
    weights = sum(rows * columns for rows, columns in masters.layers.values())
    stored = sum(layer["bytes"] for layer in layers.values())
    others = sum(files.nbytes(name) for name in masters.others)
    minimum = layout.minimum_bits(masters.layers)
    return {
        "quantised_weights": weights,
        "bits_per_weight": 8 * stored / weights,
        "minimum_bits_per_weight": minimum,
        "other_bytes": others,
        "file_bytes": files.total_bytes,
        "minimum_bytes": round(weights * minimum / 8) + others,
        "layers": layers,
    }
