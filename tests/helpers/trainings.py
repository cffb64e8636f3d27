"""What a training left behind, and whether it is what another one left."""

from __future__ import annotations

from pathlib import Path

from bitdistiller.distillation import checkpoints
from bitdistiller.stages import verify

SAME = ("student/model.safetensors", "gamma.json", "history.jsonl", "digest.json")


def state(output: Path) -> Path:
    """Where the checkpoints are."""
    return output.with_name(f"{output.name}.work") / "state"


def saved(output: Path) -> list[int]:
    """Steps of the checkpoints that are there, whole or not."""
    return list(checkpoints.steps(state(output)))


def assert_same(output: Path, undisturbed: Path) -> None:
    """Both have the same bytes in everything that a result consists of."""
    verify(output)
    for name in SAME:
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes(), name
