"""What every part of the configuration is made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from bitdistiller.config.mixed import SHAPE
from bitdistiller.plugins import FORMATS, LOSSES, plugins

OWN_LOSSES = ("cakld", "forward", "reverse", "jsd", "tlsd", "ce")
OWN_FORMATS = ("int2", "int3", "int4", "nf2", "nf3", "nf4", "sym3", "sym4", "sym8")
SIGNS = "sign1"
"""The format that belongs to OneBit alone: signs between two vectors, and no groups."""


def loss_names() -> tuple[str, ...]:
    """The losses that a training may have: ours, then those of other packages."""
    return (*OWN_LOSSES, *plugins(LOSSES))


def format_names() -> tuple[str, ...]:
    """The number formats that a run may have: ours, then those of other packages."""
    return (*OWN_FORMATS, *plugins(FORMATS))


def _one_of(
    names: Callable[[], tuple[str, ...]], also: re.Pattern[str] | None = None
) -> tuple[AfterValidator, WithJsonSchema]:
    def check(name: str) -> str:
        if name not in names() and not (also and also.fullmatch(name)):
            raise ValueError(f"unknown {name!r}; accepted: {', '.join(names())}")
        return name

    one = {"enum": list(names()), "type": "string"}
    shaped = [] if also is None else [{"pattern": f"^{also.pattern}$", "type": "string"}]
    return AfterValidator(check), WithJsonSchema({"anyOf": [one, *shaped]} if shaped else one)


def _written_formats() -> tuple[str, ...]:
    return (*format_names(), SIGNS)


LossName = Annotated[str, *_one_of(loss_names)]
FormatName = Annotated[str, Field(pattern=r"\d$"), *_one_of(format_names, SHAPE)]
"""It ends with the bits of a code, or is bits of weights, activations and KV cache."""
WrittenFormat = Annotated[str, Field(pattern=r"\d$"), *_one_of(_written_formats, SHAPE)]
"""A number format, or that of a method which has one of its own."""
Dtype = Literal["float32", "bfloat16"]
LayoutName = Literal["dense", "compressed-tensors", "gptq-v2", "gguf-q2_0", "gguf-q4_1"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
INTEGERS: tuple[FormatName, ...] = ("int2", "int3", "int4")


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
