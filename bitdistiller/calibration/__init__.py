"""Calibration: the full-precision inputs of every layer, their Gram matrices, and the clip ranges found with them."""

from bitdistiller.calibration.activations import ActivationWalk
from bitdistiller.calibration.clip import ClipSearch, SearchOptions, search, search_clip
from bitdistiller.calibration.gram import GramAccumulator, GramOptions, gram_matrix
from bitdistiller.calibration.ranges import apply_clip, clip_tensors, load_clip
from bitdistiller.calibration.sign_value import sign_value_decomposition
from bitdistiller.calibration.tokens import calibration_tokens

__all__ = [
    "ActivationWalk",
    "ClipSearch",
    "GramAccumulator",
    "GramOptions",
    "SearchOptions",
    "apply_clip",
    "calibration_tokens",
    "clip_tensors",
    "gram_matrix",
    "load_clip",
    "search",
    "search_clip",
    "sign_value_decomposition",
]
