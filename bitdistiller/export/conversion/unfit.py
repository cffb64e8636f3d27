"""The error of a layout that cannot hold a checkpoint."""

from pathlib import Path

from bitdistiller.config import Quantization
from bitdistiller.errors import InputError


class Unfit(InputError):
    """A sound checkpoint that a layout cannot hold with the same values, as one line; the DAG goes on without it."""


def require_grouped(checkpoint: Path, quantization: Quantization) -> None:
    """Raises Unfit for a checkpoint whose layers do more than multiply by their weight (OneBit, LLM-QAT)."""
    if not quantization.grouped:
        raise Unfit(f"{checkpoint}: no other layout holds {quantization.format}, whose layers are more than a weight")
