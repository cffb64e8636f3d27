"""Labels beside points, placed so that they cover neither points nor each other."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from bitdistiller.reporting.plot_style import HALO, INK, MUTED

NEAR = 9.0
"""Distance of a label from its point, in typographic points; farther labels get a thin line to their point."""
STEPS = (14.0, 26.0, 38.0, 50.0, 62.0)
OUTSIDE = 40.0
"""How much worse a unit of area outside the panel is than one over another label."""


def place_labels(panel: Axes, labels: list[tuple[float, float, str]], obstacles: list[Bbox]) -> None:
    """
    Write each (x, y, text) beside its point, both in data units; `obstacles` are boxes in display units to keep free.

    Greedy from the first label on: of a fixed list of places the one that overlaps least, the nearest among equals.
    """
    renderer = panel.figure.canvas.get_renderer()
    scale = panel.figure.dpi / 72
    points = [panel.transData.transform((x, y)) for x, y, _ in labels]
    taken = list(obstacles) + [
        Bbox.from_bounds(px - 4 * scale, py - 4 * scale, 8 * scale, 8 * scale) for px, py in points
    ]
    for (x, y, text), point in zip(labels, points, strict=True):
        width, height = _size(panel, text, renderer)
        places = [(*offset, _box(point, offset, width, height, scale)) for offset in _offsets()]
        dx, dy, align, box = min(places, key=lambda place: _cost(place[3], taken, panel.bbox))
        _write(panel, (x, y), (dx, dy, align), text)
        taken.append(box)


def boxes_along(panel: Axes, line: Line2D) -> list[Bbox]:
    """Small boxes in display units that cover a line of the panel."""
    path = line.get_transform().transform_path(line.get_path()).interpolated(60)
    return [Bbox.from_bounds(x - 2, y - 2, 4, 4) for x, y in path.vertices if panel.bbox.contains(x, y)]


def _offsets() -> list[tuple[float, float, str]]:
    near = [(NEAR, 0.0, "left"), (-NEAR, 0.0, "right"), (0.0, NEAR + 2, "center"), (0.0, -NEAR - 2, "center")]
    far = [(side * NEAR * 1.6, sign * step, align) for step in STEPS for sign in (1, -1) for side, align in SIDES]
    return near + far


SIDES = ((1, "left"), (-1, "right"))


def _size(panel: Axes, text: str, renderer: object) -> tuple[float, float]:
    probe = panel.text(0, 0, text, fontsize=8.5)
    box = probe.get_window_extent(renderer)
    probe.remove()
    return box.width, box.height


def _box(point: tuple[float, float], offset: tuple, width: float, height: float, scale: float) -> Bbox:
    dx, dy, align = offset
    left = {"left": 0.0, "right": -width, "center": -width / 2}[align]
    return Bbox.from_bounds(point[0] + dx * scale + left, point[1] + dy * scale - height / 2, width, height)


def _cost(box: Bbox, taken: list[Bbox], panel: Bbox) -> float:
    covered = sum(_overlap(box, other) for other in taken)
    outside = box.width * box.height - _overlap(box, panel)
    return round(covered + OUTSIDE * outside, 1)


def _overlap(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else shared.width * shared.height


def _write(panel: Axes, point: tuple[float, float], offset: tuple[float, float, str], text: str) -> None:
    dx, dy, align = offset
    far = abs(dx) > NEAR or abs(dy) > NEAR + 2
    line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4} if far else None
    panel.annotate(
        text,
        point,
        xytext=(dx, dy),
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=8.5,
        color=INK,
        path_effects=HALO,
        arrowprops=line,
    )
