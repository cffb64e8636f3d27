"""Small panels along the depth of a model: one per kind of projection, a band of them per heading."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bitdistiller.reporting.plot_style import INK, MUTED, new_figure, subtitle

Words = list[tuple[str, str]]
"""Texts with their colours."""
MOST_COLUMNS = 7
MARKED = 16
"""Blocks up to which single points are marked."""
HEADING = 21.0
"""Points from a panel up to the heading of its band."""


def depth_figure(
    bands: list[tuple[list[tuple[str, str]], list[str]]], height: float = 1.9
) -> tuple[Figure, list[list[Axes]]]:
    """
    A figure and its panels for every (heading, names of its panels); panels of a band share their vertical axis.

    A heading is coloured words, the first of them the title; it stands over its band. `height` is that of a row of
    panels in inches.
    """
    columns = min(MOST_COLUMNS, max(len(names) for _, names in bands))
    rows = [math.ceil(len(names) / columns) for _, names in bands]
    figure, axes = new_figure(sum(rows), columns, height)
    placed, start = [], 0
    for (heading, names), count in zip(bands, rows, strict=True):
        cells = axes[start * columns : (start + count) * columns]
        for panel in cells[len(names) :]:
            panel.set_axis_off()
        placed.append(_band(cells[: len(names)], heading, names, columns))
        start += count
    return figure, placed


def draw_line(panel: Axes, blocks: list[int], values: list[float], color: str, **look: float) -> None:
    """A line along the blocks, its points marked where they are few."""
    marker = {"marker": "o", "markersize": 3.5, "markeredgewidth": 0} if len(blocks) <= MARKED else {}
    panel.plot(blocks, values, color=color, **{"linewidth": 1.3, "solid_capstyle": "round", **marker, **look})


def _band(panels: list[Axes], heading: Words, names: list[str], columns: int) -> list[Axes]:
    for index, (panel, name) in enumerate(zip(panels, names, strict=True)):
        if index:
            panel.sharey(panels[0])
        if index % columns:
            panel.tick_params(labelleft=False)
        panel.tick_params(labelsize=8)
        panel.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
        panel.set_title(name, fontsize=8, color=MUTED)
    panels[-1 - (len(names) - 1) % columns].set_xlabel("Block", loc="left", fontsize=8)
    subtitle(panels[0], [(" ", INK)], lift=HEADING)
    subtitle(panels[0], heading, lift=HEADING, in_layout=False)
    return panels
