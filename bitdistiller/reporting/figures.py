"""All plots of an experiment, by the name of their file."""

from __future__ import annotations

from matplotlib.figure import Figure

from bitdistiller.reporting import clip_plot, plots
from bitdistiller.reporting.collect import Collected

CAPTIONS = {
    "perplexity_vs_bits": "Perplexity versus stored bits per weight. The dashed line is the unquantised model.",
    "accuracy_vs_bits": "Accuracy in percent versus stored bits per weight, with standard errors.",
    "training_curves": "Training: loss of every step (thin) and evaluation loss (thick) over all attempts, with its "
    "lowest point, which is the checkpoint that was kept.",
    "clip_error": "Clip search: mean squared change of every layer's output on the calibration tokens, without "
    "clipping (grey) and with the ranges that were chosen (blue), along the depth of the model.",
    "clip_ratio": "Clip search: mean share of the groups' maxima (blue) and minima (red) that was kept, along the "
    "depth of the model.",
}


def draw(collected: Collected) -> dict[str, Figure]:
    """Every figure that `CAPTIONS` names, in that order; one that has nothing to show says so."""
    return {
        "perplexity_vs_bits": plots.perplexity_vs_bits(collected.frame),
        "accuracy_vs_bits": plots.accuracy_vs_bits(collected.frame),
        "training_curves": plots.training_curves(collected.history),
        "clip_error": clip_plot.clip_error(collected.clips),
        "clip_ratio": clip_plot.clip_ratio(collected.clips),
    }
