"""What the clip search did along the depth of the model: errors before and after, and what was kept."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bitdistiller.reporting.clip_table import title_of
from bitdistiller.reporting.depth_panels import depth_figure, draw_line
from bitdistiller.reporting.layer_names import short_kinds
from bitdistiller.reporting.plot_style import INK, MUTED, SERIES, STYLE, message_figure

BEFORE, AFTER = MUTED, SERIES[2][0]
WORDS = [("without clipping", BEFORE), ("clipped", AFTER)]
WIDE = 30.0
"""Ratio of an axis' ends from which it has powers of ten only."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def clip_error(clips: pd.DataFrame) -> Figure:
    """A band of panels per search, a panel per kind of projection; layers of one kind in a block are averaged."""
    positive = clips[(clips["error_before"] > 0) & (clips["error_after"] > 0)]
    searches = [group for _, group in positive.groupby(["model", "clip"], sort=False)]
    with matplotlib.rc_context(STYLE):
        if not searches:
            return message_figure("No clip search has finished yet.")
        names = [short_kinds(group["kind"]) for group in searches]
        bands = [
            ([(title_of(group), INK), *WORDS], list(kinds.values()))
            for group, kinds in zip(searches, names, strict=True)
        ]
        figure, placed = depth_figure(bands)
        for group, kinds, panels in zip(searches, names, placed, strict=True):
            for panel, kind in zip(panels, kinds, strict=True):
                _draw(panel, group[group["kind"] == kind])
            _scale(panels)
        figure.supylabel("Mean squared change of the output", color=MUTED, fontsize=9)
    return figure


def clip_ratio(clips: pd.DataFrame) -> Figure:
    """As `clip_error`: the mean shares of the groups' maxima and minima that the searches kept, of 1."""
    searches = [group for _, group in clips.groupby(["model", "clip"], sort=False)]
    with matplotlib.rc_context(STYLE):
        if not searches:
            return message_figure("No clip search has finished yet.")
        names = [short_kinds(group["kind"]) for group in searches]
        words = [("maxima kept", AFTER), ("minima kept", SERIES[0][0])]
        bands = [
            ([(title_of(group), INK), *words], list(kinds.values()))
            for group, kinds in zip(searches, names, strict=True)
        ]
        figure, placed = depth_figure(bands)
        for group, kinds, panels in zip(searches, names, placed, strict=True):
            for panel, kind in zip(panels, kinds, strict=True):
                means = group[group["kind"] == kind].groupby("block")[["maximum_ratio", "minimum_ratio"]].mean()
                for name, (_, color) in zip(means, words, strict=True):
                    draw_line(panel, means.index.tolist(), means[name].astype(float).tolist(), color)
            panels[0].set_ylim(top=1.02)
        figure.supylabel("Share of the range that was kept", color=MUTED, fontsize=9)
    return figure


def _draw(panel: Axes, layers: pd.DataFrame) -> None:
    means = layers.groupby("block")[["error_before", "error_after"]].mean().astype(float)
    blocks, before, after = means.index.tolist(), means["error_before"].tolist(), means["error_after"].tolist()
    panel.fill_between(blocks, after, before, color=AFTER, alpha=0.1, linewidth=0)
    draw_line(panel, blocks, before, BEFORE, linewidth=1.0)
    draw_line(panel, blocks, after, AFTER)


def _scale(panels: list[Axes]) -> None:
    panel = panels[0]
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    panel.yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > WIDE else (1, 2, 5), numticks=5))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value)))


def tick_label(value: float) -> str:
    """Plain digits in the middle of the scale, `2×10⁻⁵` outside of it."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    digits, exponent = f"{value:.0e}".split("e")
    factor = "" if digits == "1" else f"{digits}×"
    return f"{factor}10{str(int(exponent)).translate(RAISED)}"
