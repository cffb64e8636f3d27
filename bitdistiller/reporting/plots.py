"""Perplexity and accuracy versus bits per weight, and training curves."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bitdistiller.config import METHODS
from bitdistiller.reporting.label_layout import boxes_along, place_labels
from bitdistiller.reporting.plot_style import HALO, INK, MUTED, SERIES, STYLE, message_figure, new_figure, subtitle
from bitdistiller.reporting.quantities import perplexity
from bitdistiller.reporting.runs import unquantised

LOG_FROM = 8.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
MOST_COLUMNS = 3


def perplexity_vs_bits(frame: pd.DataFrame) -> Figure:
    """One panel per model and perplexity evaluation: a point per run, the unquantised model as a line."""
    return _value_vs_bits(frame[frame["quantity"] == "perplexity"], "No quantised run has a perplexity yet.")


def accuracy_vs_bits(frame: pd.DataFrame) -> Figure:
    """The same, in percent, for every evaluation whose table column is a share."""
    shares = frame[frame["quantity"] == "fraction"]
    percent = {name: 100 * shares[name] for name in ("value", "standard_error")}
    return _value_vs_bits(shares.assign(**percent), "No quantised run has an accuracy yet.")


def _value_vs_bits(frame: pd.DataFrame, nothing: str) -> Figure:
    finite = np.isfinite(frame["value"].to_numpy(float, na_value=np.nan))
    chosen = frame[frame["main"] & frame["bits_per_weight"].notna() & finite]
    panels = [(key, group) for key, group in chosen.groupby(["model", "evaluation"], sort=False)]
    panels = [(key, group) for key, group in panels if not unquantised(group).all()]
    with matplotlib.rc_context(STYLE):
        if not panels:
            return message_figure(nothing)
        columns = min(len(panels), 2)
        rows = math.ceil(len(panels) / columns)
        figure, axes = new_figure(rows, columns, 4.2)
        for panel in axes[len(panels) :]:
            panel.set_axis_off()
        for panel, (_, group) in zip(axes, panels, strict=False):
            _draw_values(panel, group)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for panel, (_, group) in zip(axes, panels, strict=False):
            _label_values(panel, group)
    return figure


def _draw_values(panel: Axes, group: pd.DataFrame) -> None:
    share = group.iloc[0]["quantity"] == "fraction"
    log = not share and group["value"].max() / group["value"].min() >= LOG_FROM
    quantised = group[~unquantised(group)]
    for (method, _), points in quantised.groupby(["method", quantised["format"].str.rstrip("0123456789")], sort=False):
        color, marker = _look(method)
        points = points.sort_values("bits_per_weight")
        x, y = (points[name].to_numpy(float) for name in ("bits_per_weight", "value"))
        error = points["standard_error"].fillna(0).to_numpy(float)
        kept = np.minimum(error, y if share else y * 0.95)
        panel.errorbar(x, y, yerr=(kept, error), fmt="none", ecolor=color, elinewidth=0.8)
        panel.plot(x, y, marker=marker, color=color, markersize=6, linewidth=0.8, markeredgewidth=0)
    for value in group[unquantised(group)]["value"]:
        panel.axhline(value, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    _scale(panel, log)
    low, high = quantised["bits_per_weight"].min(), quantised["bits_per_weight"].max()
    span = max(high - low, 0.5)
    panel.set_xlim(low - 0.3 * span, high + 0.6 * span)
    panel.margins(y=0.12)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.set_xlabel("Bits per weight, scales and zero points included", loc="left")
    kind = ", log scale" if log else ""
    model, label = group.iloc[0]["model_title"], group.iloc[0]["label"]
    name = label if share or "perplexity" in label.lower() else f"{label} perplexity"
    better = ", %, higher" if share else ", lower"
    panel.set_title(f"{model}: {name}{better} is better{kind}", pad=10)


def _printed(row: Any) -> str:
    return f"{row.value:.1f}" if row.quantity == "fraction" else perplexity(row.value).pretty


def _label_values(panel: Axes, group: pd.DataFrame) -> None:
    reference = group[unquantised(group)]
    obstacles = [box for line in panel.lines for box in boxes_along(panel, line)]
    for row in reference.itertuples():
        note = panel.annotate(
            f"{row.method} {_printed(row)}",
            (1, row.value),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            color=MUTED,
            fontsize=8.5,
        )
        obstacles.append(note.get_window_extent())
    points = group[~unquantised(group)].sort_values(["value", "run"])
    labels = [
        (row.bits_per_weight, row.value, f"{row.method} {row.format}  {_printed(row)}") for row in points.itertuples()
    ]
    place_labels(panel, labels, obstacles)


def training_curves(history: pd.DataFrame) -> Figure:
    """One panel per trained run, same axes: loss of each step, evaluation loss, and where the latter is lowest."""
    with matplotlib.rc_context(STYLE):
        if history.empty:
            return message_figure("No trained run has a history yet.")
        groups = [group for _, group in history.groupby("run", sort=False)]
        columns = min(len(groups), MOST_COLUMNS)
        rows = math.ceil(len(groups) / columns)
        figure, axes = new_figure(rows, columns, 3.4 if columns == 1 else 2.9)
        for panel in axes[len(groups) :]:
            panel.set_axis_off()
        limits = _loss_limits(history)
        for index, (panel, group) in enumerate(zip(axes, groups, strict=False)):
            _draw_curve(panel, group, limits)
            if index % columns:
                panel.tick_params(labelleft=False)
            if index + columns >= len(groups):
                panel.set_xlabel("Optimizer step", loc="left")
        figure.supylabel("Loss", color=MUTED, fontsize=9)
    return figure


def _loss_limits(history: pd.DataFrame) -> tuple[float, float, bool]:
    values = pd.concat([history["loss"], history["evaluation_loss"]]).dropna().to_numpy(float)
    low, high = float(values.min()), float(values.max())
    log = low > 0 and high / low >= LOG_FROM
    if log:
        return low / 1.25, high * 1.25, True
    room = 0.08 * (high - low) or 0.5
    return low - room, high + room, False


def _draw_curve(panel: Axes, group: pd.DataFrame, limits: tuple[float, float, bool]) -> None:
    training, evaluation = group.dropna(subset="loss"), group.dropna(subset="evaluation_loss")
    color, _ = SERIES[2]
    panel.plot(*_xy(training, "loss"), color=MUTED, linewidth=0.7, alpha=0.75)
    panel.plot(*_xy(evaluation, "evaluation_loss"), color=color, linewidth=1.5)
    _scale(panel, limits[2])
    panel.set_ylim(*limits[:2])
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    first = group.iloc[0]
    gamma = "" if pd.isna(first["gamma"]) else f"   γ = {first['gamma']:.3g}"
    panel.set_title(f"{first['method']} {first['format']}{gamma}", pad=20)
    named = (("training", training, MUTED), ("evaluation", evaluation, color))
    subtitle(panel, [(name, shade) for name, events, shade in named if len(events)])
    _label_best(panel, evaluation)


def _label_best(panel: Axes, evaluation: pd.DataFrame) -> None:
    if evaluation.empty:
        return
    best = evaluation.loc[evaluation["evaluation_loss"].astype(float).idxmin()]
    step, loss = int(best["step"]), float(best["evaluation_loss"])
    panel.plot([step], [loss], marker="o", markersize=5, color=SERIES[2][0], markeredgewidth=0)
    near_end = step > 0.85 * panel.get_xlim()[1]
    place = {
        "textcoords": "offset points",
        "xytext": (4 if near_end else 0, 9),
        "ha": "right" if near_end else "center",
    }
    panel.annotate(f"best {loss:.4g}", (step, loss), **place, va="bottom", fontsize=8.5, path_effects=HALO)


def _xy(frame: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    return frame["step"].to_numpy(int), frame[name].to_numpy(float)


def _scale(panel: Axes, log: bool) -> None:
    if log:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
        panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _look(method: str) -> tuple[str, str]:
    titles = [known.title for known in METHODS.values() if known.quantised]
    return SERIES[titles.index(method) % len(SERIES)] if method in titles else (INK, "o")
