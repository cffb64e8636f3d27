"""Number formats: pure functions from weights to codes and back, with the gradients that training needs."""

from bitdistiller.formats.base import NumberFormat
from bitdistiller.formats.grouping import resolve_group_size
from bitdistiller.formats.integer import IntegerFormat
from bitdistiller.formats.llm_qat import (
    asymmetric_fake_quantize,
    channel_codes,
    channel_values,
    largest_level,
    llm_qat_weight,
    symmetric_codes,
    symmetric_fake_quantize,
    symmetric_values,
)
from bitdistiller.formats.normal_float import NormalFloatFormat
from bitdistiller.formats.packing import pack_codes, unpack_codes
from bitdistiller.formats.registry import format_names, get_format
from bitdistiller.formats.sign import check_whole_bytes, pack_signs, unpack_signs, zero_signs
from bitdistiller.formats.trained_grid import TrainedGrid, trained_grid

__all__ = [
    "IntegerFormat",
    "NormalFloatFormat",
    "NumberFormat",
    "TrainedGrid",
    "asymmetric_fake_quantize",
    "channel_codes",
    "channel_values",
    "check_whole_bytes",
    "format_names",
    "get_format",
    "largest_level",
    "llm_qat_weight",
    "pack_codes",
    "pack_signs",
    "resolve_group_size",
    "symmetric_codes",
    "symmetric_fake_quantize",
    "symmetric_values",
    "trained_grid",
    "unpack_codes",
    "unpack_signs",
    "zero_signs",
]
