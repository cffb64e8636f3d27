"""The clip search: calibration texts, number formats, Gram matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from bitdistiller.config.base import SIGNS, Dtype, Section, WrittenFormat
from bitdistiller.config.mixed import MixedBits, mixed_bits

CalibrationDataset = Literal["pile", "code", "gsm8k", "text", "demo"]


class Calibration(Section):
    """Calibration text of the clip search (docs/method.md 2)."""

    texts: CalibrationDataset
    """`text` is a local file given by `path`."""
    path: Path | None = None
    """Local file instead of the hub: JSON, JSON lines, CSV or text, also .gz, or parquet."""
    samples: PositiveInt = 128
    """Texts to use."""
    block_length: PositiveInt = 1024
    """Tokens per calibration sequence; cut to the model's context."""
    max_text_tokens: PositiveInt | None = 512
    """Texts longer than this are skipped, as in the reference; null keeps them all."""
    tokens: PositiveInt | None = None
    """Calibration tokens kept, by stride over all (reference: 512); null uses every one."""
    skip: tuple[str, ...] = ("q_", "k_", "query", "key", "Wqkv")
    """Projections whose name contains one of these are not clipped."""
    shards: PositiveInt = 1
    """Jobs that the calibration sequences are divided over; their Gram matrices add up."""
    grid_steps: PositiveInt = 10
    """Ratios tried for each end of a group, `1 - grid_limit i / grid_steps` for i = 0 .. grid_steps - 1."""
    grid_limit: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Largest share that may be cut off an end, exclusive."""
    refinement: NonNegativeInt = 0
    """Rounds of coordinate descent after the grid (not in the reference); each halves the step."""
    importance: bool = False
    """Weight every token's error by the squared gradient of the loss with respect to the layer's output (not in the
    reference); needs a backward pass through the model."""
    seed: int = 42

    @model_validator(mode="after")
    def _local_path(self) -> Self:
        if self.texts == "text" and self.path is None:
            raise ValueError("texts: text needs a path")
        return self


SEARCH_ONLY = frozenset({"shards", "grid_steps", "grid_limit", "refinement"})
"""Options of a calibration on which its Gram matrices do not depend."""


GROUPED = ("group_size", "scale_dtype", "pad")
"""Options of formats that quantise groups of weights."""


class Quantization(Section):
    """A number format with its group size."""

    format: WrittenFormat
    group_size: PositiveInt = 128
    """Consecutive input columns that share a scale."""
    scale_dtype: Dtype = "bfloat16"
    """Precision to which scales are rounded, in training and in the packed file alike."""
    pad: bool = False
    """Where the group size does not divide a layer's input features, fill its last group up with zeros."""

    @model_validator(mode="after")
    def _some_have_no_groups(self) -> Self:
        given = [] if self.grouped else sorted(self.model_fields_set.intersection(GROUPED))
        if given:
            raise ValueError(f"format {self.format} takes no {given[0]}: it has no groups")
        return self

    @property
    def signs(self) -> bool:
        """Whether these are OneBit's signs, which have no groups."""
        return self.format == SIGNS

    @property
    def bits(self) -> MixedBits | None:
        """LLM-QAT's bits of weights, activations and cache, which have one scale for each row; None for others."""
        return mixed_bits(self.format)

    @property
    def grouped(self) -> bool:
        """Whether weights are quantised in groups."""
        return not self.signs and self.bits is None

    @property
    def record(self) -> dict[str, Any]:
        """What has a meaning, for files."""
        return self.model_dump(mode="json", include=None if self.grouped else {"format"})


class GramRecipe(Section):
    """Everything one shard of the calibration needs; Gram matrices do not depend on the number format."""

    group_size: PositiveInt = 128
    """Consecutive input columns that share a scale."""
    pad: bool = False
    """Where the group size does not divide a layer's input features, fill its last group up with zeros."""
    calibration: Calibration


class ClipRecipe(Section):
    """Everything the stage `clip` needs."""

    quantization: Quantization
    calibration: Calibration

    @property
    def grams(self) -> GramRecipe:
        """Recipe of the Grams that this search needs."""
        chosen = self.quantization
        return GramRecipe(group_size=chosen.group_size, pad=chosen.pad, calibration=self.calibration)
