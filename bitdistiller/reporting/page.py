"""A table and its plots as one HTML page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bitdistiller.reporting.clip_table import HEADINGS, NOTE, ClipTable
from bitdistiller.reporting.plot_style import THEME
from bitdistiller.reporting.tables import Table


def render(table: Table, plots: list[tuple[str, str, str]], clips: Sequence[ClipTable] = ()) -> str:
    """
    The page; `plots` are (name, caption, SVG text), set into it and coloured by its light or dark theme.

    `clips` stand below the plots.
    """
    figures = [(name, caption, inline_svg(svg, name, caption)) for name, caption, svg in plots]
    beside = {"clips": clips, "clip_headings": HEADINGS, "clip_note": NOTE}
    return _page("page.html", title=table.title, table=table, figures=figures, **beside)


def render_ablation(title: str, rows: Sequence[Sequence[str]], note: str) -> str:
    """The page of an ablation's table; says so where there are no rows."""
    return _page("ablation.html", title=title, rows=rows, note=note)


def _page(template: str, **values: Any) -> str:
    loader = PackageLoader("bitdistiller.reporting", "templates")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    style = Markup(loader.get_source(environment, "page.css")[0])
    return environment.get_template(template).render(style=style, **values) + "\n"


def inline_svg(svg: str, name: str, caption: str) -> Markup:
    """An SVG file as an element of a page: no prolog, ids of its own, colours from the page's CSS variables."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"\s(xmlns(:\w+)?)=\"[^\"]*\"", "", body)
    body = re.sub(r"(\bid=\"|href=\"#|url\(#)", rf"\g<1>{name}-", body)
    for color, variable in THEME.items():
        body = body.replace(color, f"var({variable})")
    body = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", body, count=1)
    label = Markup.escape(caption)
    return Markup(body.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip())
