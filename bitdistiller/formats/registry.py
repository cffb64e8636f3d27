"""The number formats by name. A new format is one file and one line here, or an entry point of another package."""

from collections.abc import Callable
from functools import partial

from bitdistiller.errors import InputError
from bitdistiller.formats.base import NumberFormat
from bitdistiller.formats.integer import IntegerFormat
from bitdistiller.formats.normal_float import NormalFloatFormat
from bitdistiller.formats.symmetric import SymmetricFormat
from bitdistiller.plugins import FORMATS as GROUP
from bitdistiller.plugins import load_plugin, plugins

FORMATS: dict[str, Callable[..., NumberFormat]] = {
    "int2": partial(IntegerFormat, 2),
    "int3": partial(IntegerFormat, 3),
    "int4": partial(IntegerFormat, 4),
    "nf2": partial(NormalFloatFormat, 2),
    "nf3": partial(NormalFloatFormat, 3),
    "nf4": partial(NormalFloatFormat, 4),
    "sym3": partial(SymmetricFormat, 3),
    "sym4": partial(SymmetricFormat, 4),
    "sym8": partial(SymmetricFormat, 8),
}


def format_names() -> tuple[str, ...]:
    """The names `get_format` accepts."""
    return (*FORMATS, *plugins(GROUP))


def get_format(
    name: str, scale_dtype: str = "float32", reference_range: bool = False, pad: bool = False
) -> NumberFormat:
    """The number format called `name`, with scales rounded to `scale_dtype` (float32 or bfloat16).

    `reference_range` keeps the released code's range for groups of one sign; integer formats only. `pad` accepts
    input features that the group size does not divide.
    Raises InputError for an unknown name or scale dtype, and for `reference_range` with another kind of format.
    """
    if name not in format_names():
        raise InputError(f"format: unknown {name!r}; accepted: {', '.join(format_names())}")
    make = FORMATS[name] if name in FORMATS else load_plugin(GROUP, name)
    if not reference_range:
        return make(scale_dtype=scale_dtype, pad=pad)
    try:
        return make(scale_dtype=scale_dtype, pad=pad, reference_range=True)
    except TypeError:
        raise InputError(f"reference_range: {name} has none; accepted for integer formats only") from None
