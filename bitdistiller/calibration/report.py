"""What the clip search did to each layer, in numbers for tables and plots."""

from typing import Any

from torch import Tensor

from bitdistiller.calibration.clip import PAPER, ClipSearch

CLIP_REPORT = "clip.json"


def describe_layer(name: str, found: ClipSearch, tokens: int) -> dict[str, Any]:
    """One row of clip.json.

    `error_before` and `error_after` are the mean, over calibration tokens and output features, of the squared change
    of the layer's output (times the token's importance, where tokens are weighted), summed over groups as if these
    were independent. `maximum_ratio` and `minimum_ratio` are the mean shares of the ends that were kept; the
    histograms count groups from ratio 1 down to 0.55.
    """
    samples = tokens * found.maximum.shape[0]
    return {
        "name": name,
        "tokens": tokens,
        "groups": found.maximum.shape[0] * found.maximum.shape[1],
        "error_before": found.error_before.double().sum().item() / samples,
        "error_after": found.error_after.double().sum().item() / samples,
        "maximum_ratio": found.maximum_ratio.double().mean().item(),
        "minimum_ratio": found.minimum_ratio.double().mean().item(),
        "maximum_histogram": _histogram(found.maximum_ratio),
        "minimum_histogram": _histogram(found.minimum_ratio),
    }


def _histogram(ratios: Tensor) -> list[int]:
    steps = ((1 - ratios.double()) * 20).round().long().flatten()
    return steps.bincount(minlength=len(PAPER.ratios)).tolist()
