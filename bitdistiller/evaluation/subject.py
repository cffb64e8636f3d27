"""The model under evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitdistiller.generation.engine import Engine


@dataclass
class Subject:
    """
    A causal language model on its device, with its tokenizer; it writes `batch_size` answers at once.

    reference: the full-precision model that it is compared with, where an evaluation does that. limit: longest sequence
    in tokens, where another engine has one of its own.
    """

    model: Any
    tokenizer: Any
    batch_size: int = 16
    reference: Any = None
    limit: int | None = None

    @classmethod
    def load(
        cls, path: Path, dtype: str | None, batch_size: int = 16, reference: Path | None = None, packed: bool = False
    ) -> Subject:
        """
        Load any model directories of this project or of transformers; on the first GPU where there is one.

        packed: keep the weights of a packed checkpoint packed in memory.
        """
        import torch
        from transformers import AutoTokenizer

        from bitdistiller.export.load import load_model

        device = "cuda" if torch.cuda.is_available() else "cpu"
        beside = load_model(reference, dtype=dtype, device=device) if reference else None
        model = load_model(path, dtype=dtype, device=device, packed=packed)
        return cls(model, AutoTokenizer.from_pretrained(path), batch_size, beside)

    @classmethod
    def without_weights(cls, path: Path, limit: int, batch_size: int = 16, reference: Path | None = None) -> Subject:
        """A model whose work is done already: configuration and tokenizer, and parameters that hold nothing."""
        from accelerate import init_empty_weights
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from bitdistiller.export.build import dense_config

        with init_empty_weights():
            model, beside = (
                None if place is None else AutoModelForCausalLM.from_config(dense_config(place)).eval()
                for place in (path, reference)
            )
        return cls(model, AutoTokenizer.from_pretrained(path), batch_size, beside, limit)

    @property
    def context(self) -> int:
        """Longest sequence in tokens."""
        return self.limit or getattr(self.model.config, "max_position_embeddings", None) or 2**31

    @cached_property
    def engine(self) -> Engine:
        """What writes the model's answers."""
        from bitdistiller.generation import TransformersEngine

        return TransformersEngine(self.model, self.tokenizer, self.batch_size)
