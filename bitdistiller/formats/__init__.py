"""Number formats: pure functions from weights to codes and back, with the gradients that training needs."""

from bitdistiller.formats.base import NumberFormat
from bitdistiller.formats.grouping import resolve_group_size
from bitdistiller.formats.integer import IntegerFormat
from bitdistiller.formats.normal_float import NormalFloatFormat
from bitdistiller.formats.packing import pack_codes, unpack_codes
from bitdistiller.formats.registry import format_names, get_format
from bitdistiller.formats.trained_grid import TrainedGrid, trained_grid

__all__ = [
    "IntegerFormat",
    "NormalFloatFormat",
    "NumberFormat",
    "TrainedGrid",
    "format_names",
    "get_format",
    "pack_codes",
    "resolve_group_size",
    "trained_grid",
    "unpack_codes",
]
