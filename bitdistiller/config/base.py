"""What every part of the configuration is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

LossName = Literal["cakld", "forward", "reverse", "jsd", "tlsd", "ce"]
FormatName = Literal["int2", "int3", "int4", "nf2", "nf3", "nf4", "sym3", "sym4", "sym8"]
Dtype = Literal["float32", "bfloat16"]
LayoutName = Literal["dense", "gptq-v2", "gguf-q2_0", "gguf-q4_1"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
INTEGERS: tuple[FormatName, ...] = ("int2", "int3", "int4")


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
