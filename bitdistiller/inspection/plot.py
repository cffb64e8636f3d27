"""Clip ratios along the depth of the model."""

from __future__ import annotations

from itertools import groupby

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from bitdistiller.inspection.rows import LayerRow
from bitdistiller.reporting.depth_panels import depth_figure, draw_line
from bitdistiller.reporting.layer_names import short_kinds, split_name
from bitdistiller.reporting.plot_style import INK, MUTED, SERIES, STYLE

ENDS = (("maximum_kept", "kept of the maximum", SERIES[0][0]), ("minimum_kept", "kept of the minimum", SERIES[2][0]))
BAND = ("band: 10–90 % of the groups", MUTED)


def clip_ratios(rows: list[LayerRow], title: str) -> Figure:
    """Panels by end and kind of projection: the mean share that was kept, and the 10-90 % band of groups.

    Rows without ratios are left out; at least one must have them. Layers of one kind in a block are averaged.
    """
    known = [(*split_name(row.name), row) for row in rows if row.maximum_kept is not None]
    names = short_kinds(kind for _, kind, _ in known)
    bands = [([(title, INK), (word, color), BAND], list(names.values())) for _, word, color in ENDS]
    lowest = min(min(row.maximum_kept_low, row.minimum_kept_low) for *_, row in known)
    with matplotlib.rc_context(STYLE):
        figure, placed = depth_figure(bands, height=2.1)
        for (name, _, color), panels in zip(ENDS, placed, strict=True):
            for panel, kind in zip(panels, names, strict=True):
                _draw(panel, [(block, row) for block, other, row in known if other == kind], name, color)
            _scale(panels[0], lowest)
    return figure


def _scale(panel: Axes, lowest: float) -> None:
    panel.set_ylim(lowest - 0.02, 1.005)
    panel.yaxis.set_major_locator(MultipleLocator(0.1))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))


def _draw(panel: Axes, layers: list[tuple[int, LayerRow]], name: str, color: str) -> None:
    blocks = {block: [row for _, row in found] for block, found in groupby(sorted(layers, key=_block), key=_block)}
    mean, low, high = ([_mean(rows, name + suffix) for rows in blocks.values()] for suffix in ("", "_low", "_high"))
    panel.fill_between(list(blocks), low, high, color=color, alpha=0.14, linewidth=0)
    draw_line(panel, list(blocks), mean, color)


def _block(layer: tuple[int, LayerRow]) -> int:
    return layer[0]


def _mean(rows: list[LayerRow], name: str) -> float:
    return sum(getattr(row, name) for row in rows) / len(rows)
