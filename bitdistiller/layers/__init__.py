"""Fake-quantised linear layers, the functions that swap them into a model, and the files their weights lie in."""

from bitdistiller.layers.files import TensorFiles
from bitdistiller.layers.mixed_linear import MixedLinear, check_cached, is_cached, mix_linears
from bitdistiller.layers.onebit_linear import VECTOR_STEM, VECTORS, OneBitLinear
from bitdistiller.layers.packed_linear import PackedLinear
from bitdistiller.layers.packed_onebit_linear import PackedOneBitLinear
from bitdistiller.layers.quantized_linear import FakeQuantizedLinear
from bitdistiller.layers.swap import (
    bake_linears,
    fake_quantized_linears,
    quantize_block,
    quantize_linears,
    restore_linears,
)
from bitdistiller.layers.trained_grid_linear import GRID_STEM, GRID_TENSORS, TrainedGridLinear
from bitdistiller.layers.walk import block_linears, decoder_blocks, quantized_linear_names

__all__ = [
    "GRID_STEM",
    "GRID_TENSORS",
    "VECTORS",
    "VECTOR_STEM",
    "FakeQuantizedLinear",
    "MixedLinear",
    "OneBitLinear",
    "PackedLinear",
    "PackedOneBitLinear",
    "TensorFiles",
    "TrainedGridLinear",
    "bake_linears",
    "block_linears",
    "check_cached",
    "decoder_blocks",
    "fake_quantized_linears",
    "is_cached",
    "mix_linears",
    "quantize_block",
    "quantize_linears",
    "quantized_linear_names",
    "restore_linears",
]
