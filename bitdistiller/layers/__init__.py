"""Fake-quantised linear layers and the functions that swap them into a model."""

from bitdistiller.layers.quantized_linear import FakeQuantizedLinear
from bitdistiller.layers.swap import bake_linears, fake_quantized_linears, quantize_linears, restore_linears
from bitdistiller.layers.walk import block_linears, decoder_blocks, quantized_linear_names

__all__ = [
    "FakeQuantizedLinear",
    "bake_linears",
    "block_linears",
    "decoder_blocks",
    "fake_quantized_linears",
    "quantize_linears",
    "quantized_linear_names",
    "restore_linears",
]
