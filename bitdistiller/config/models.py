"""Full-precision models."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from bitdistiller.config.base import Dtype, Section


class DemoTeacherRecipe(Section):
    """The embedded LLaMA-architecture teacher, trained on the generated corpus by `pretrain-demo`."""

    seed: int = 42
    """Seed of the corpus, the initial weights and the order of the data."""
    hidden_size: PositiveInt = 128
    intermediate_size: PositiveInt = 384
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    kv_heads: PositiveInt = 4
    vocabulary: PositiveInt = 1024
    """Size of the byte-level BPE vocabulary."""
    context: PositiveInt = 128
    """Longest sequence in tokens."""
    documents: PositiveInt = 9000
    """Training documents per track."""
    steps: PositiveInt = 1400
    """Optimizer steps."""
    batch_size: PositiveInt = 8
    """Sequences per optimizer step."""
    learning_rate: PositiveFloat = 2e-3
    """Peak learning rate."""


class Model(Section):
    """A full-precision model: exactly one of `path`, `hub` and `demo`."""

    path: Path | None = None
    """Local directory in Hugging Face layout (config.json, safetensors, tokenizer)."""
    hub: str | None = None
    """Hub id, `organisation/name`; downloaded by the rule `fetch` alone."""
    revision: str | None = None
    """Commit or tag of `hub`; a commit makes the run reproducible."""
    demo: DemoTeacherRecipe | None = None
    """Train the embedded demo teacher; `{}` takes the defaults."""
    title: str | None = None
    """Name in tables; equal to the paper's name, the published numbers are printed beside ours."""
    dtype: Dtype = "bfloat16"
    """Precision of the full-precision model and of evaluation."""
    license: str | None = None
    """Its licence, for the cards of what is made of it; null takes what its README says."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [key for key in ("path", "hub", "demo") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of path, hub and demo (found {', '.join(given) or 'none'})")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision belongs to hub; a local path has none")
        return self
