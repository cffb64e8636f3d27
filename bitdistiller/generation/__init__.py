"""Teacher completions: engines that write them, shards that survive anything."""

from typing import Any

from bitdistiller.generation.engine import Completion, Engine, Sampling

__all__ = ["Completion", "Engine", "Sampling", "TransformersEngine"]


def __getattr__(name: str) -> Any:
    if name == "TransformersEngine":  # its imports take seconds, which a stage that goes on elsewhere saves
        from bitdistiller.generation.transformers_engine import TransformersEngine

        return TransformersEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
