"""How plots look: colours that colour-blind readers can tell apart, few lines, and the same bytes every time."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

INK, MUTED, GRID, SURFACE = "#1f2328", "#646d77", "#e3e6ea", "#ffffff"
# Okabe and Ito's colours, the darker ones first; each is told apart by its marker too.
SERIES = (
    ("#d55e00", "s"),
    ("#cc79a7", "^"),
    ("#0072b2", "o"),
    ("#009e73", "D"),
    ("#e69f00", "v"),
    ("#56b4e9", "P"),
    ("#7f3c8d", "X"),
    ("#8c6d31", "<"),
    ("#5b5b5b", ">"),
)

WIDTH = 8.4
"""Inches; all figures share it, and so their letters are equally large side by side."""

THEME = {INK: "--ink", MUTED: "--muted", GRID: "--rule", SURFACE: "--surface", "#0072b2": "--blue", "#d55e00": "--red"}
"""Colours that a page may replace by its own CSS variables."""

HALO = [withStroke(linewidth=2.5, foreground=SURFACE)]
"""Keeps grid lines off a label."""

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": SURFACE,
    "figure.facecolor": SURFACE,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "bitdistiller",
    "path.simplify": True,
    "figure.dpi": 100,
}

FILE_OPTIONS = {
    ".svg": {"metadata": {"Date": None, "Creator": None, "Format": None, "Type": None}},
    ".png": {"metadata": {"Software": None}, "dpi": 200},
}


def new_figure(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` x `columns` panels, each `height` inches high, outside pyplot's global state."""
    figure = Figure(figsize=(WIDTH, rows * height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.grid(axis="y")
        panel.set_axisbelow(True)
        panel.spines["left"].set_visible(False)
    return figure, list(panels)


def message_figure(text: str) -> Figure:
    """A figure that says why there is no plot."""
    figure, (panel,) = new_figure(1, 1, 0.8)
    panel.set_axis_off()
    panel.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=panel.transAxes)
    return figure


def subtitle(panel: Axes, words: list[tuple[str, str]], lift: float = 7, in_layout: bool = True) -> None:
    """Coloured words between title and panel, `lift` points above it: they name the lines, and cover none.

    Without `in_layout` they may run past the panel's right end and no room is kept for them.
    """
    place, anchor, gap = (0.0, 1.0), "axes fraction", 0
    for text, color in words:
        anchor = panel.annotate(
            text,
            place,
            xycoords=anchor,
            xytext=(gap, lift if anchor == "axes fraction" else 0),
            textcoords="offset points",
            color=color,
            fontsize=8,
            va="bottom",
        )
        anchor.set_in_layout(in_layout)
        place, gap = (1.0, 0.0), 8


def save(figure: Figure, stem: Path) -> None:
    """Write `stem`.svg and `stem`.png; equal figures give equal bytes."""
    for suffix in FILE_OPTIONS:
        save_as(figure, stem.with_suffix(suffix))


def svg_text(figure: Figure) -> str:
    """The text of the SVG file; equal figures give equal texts."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", **FILE_OPTIONS[".svg"])
    return text.getvalue()


def save_as(figure: Figure, path: Path) -> None:
    """Write one file, .svg or .png by its suffix; equal figures give equal bytes."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, **FILE_OPTIONS[path.suffix])
