"""Teacher completions: engines that write them, shards that survive anything."""

from bitdistiller.generation.engine import Completion, Engine, Sampling
from bitdistiller.generation.transformers_engine import TransformersEngine

__all__ = ["Completion", "Engine", "Sampling", "TransformersEngine"]
