"""The page itself: everything that was collected, set into one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bitdistiller.plan import Plan
from bitdistiller.reporting import ablation, clip_table, cost
from bitdistiller.reporting.build import build_table
from bitdistiller.reporting.collect import Collected
from bitdistiller.reporting.figures import CAPTIONS, draw
from bitdistiller.reporting.page import inline_svg
from bitdistiller.reporting.plot_style import svg_text
from bitdistiller.reporting.report.origins import origins
from bitdistiller.reporting.report.samples import samples
from bitdistiller.reporting.tables import Row, Table


def render(collected: Collected, plan: Plan, drawn: Mapping[str, str] | None = None) -> str:
    """
    The page, with a final newline. Everything but the cost and the provenance follows from the results alone.

    drawn: SVG texts of the plots by name; None draws them.
    """
    if drawn is None:
        drawn = {name: svg_text(figure) for name, figure in draw(collected).items()}
    loader = PackageLoader("bitdistiller.reporting", "templates")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    style = "".join(loader.get_source(environment, name)[0] for name in ("page.css", "report.css"))
    experiment, costs = plan.experiment, cost.cost_frame(plan)
    table = build_table(experiment, collected, cost.training_hours(costs))
    studied = ablation.ablation_frame(experiment, collected, plan.results)
    values = {
        "table": table,
        "headlines": headlines(table),
        "coverage": coverage(collected, plan),
        "figures": [(name, CAPTIONS[name], inline_svg(svg, name, CAPTIONS[name])) for name, svg in drawn.items()],
        "clips": clip_table.clip_tables(collected.clips),
        "clip_headings": clip_table.HEADINGS,
        "clip_note": clip_table.NOTE,
        "samples": samples(collected, plan),
        "ablation": ablation.table_rows(experiment, studied) if experiment.ablation else [],
        "ablation_note": ablation.NOTE,
        "cost_headings": cost.HEADINGS,
        "cost_rows": cost.summary(costs),
        "cost_note": cost.NOTE,
        "origins": embedded(origins(collected, plan)),
        "style": Markup(style),
        "script": Markup(loader.get_source(environment, "report.js")[0]),
    }
    return environment.get_template("report.html").render(**values) + "\n"


def embedded(content: Any) -> Markup:
    """JSON that no part of can end the element it stands in."""
    text = json.dumps(content, ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def headlines(table: Table) -> list[tuple[str, int, Row]]:
    """(model, bits, row) of every bit width of every model: the row that is best in most columns."""
    found = []
    for section in table.sections:
        for bits, rows in section.bit_widths:
            measured = [row for row in rows if any(cell.value for cell in row.cells)]
            if measured:
                best = max(measured, key=lambda row: (sum(cell.best for cell in row.cells), row is measured[-1]))
                found.append((section.title, bits, best))
    return found


def coverage(collected: Collected, plan: Plan) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every run with its evaluations: finished, pending, or not measured (with a reason)."""
    frame = collected.frame
    missing = frame[frame["main"] & frame["value"].isna()]
    unmeasured = set(zip(missing["run"], missing["evaluation"], strict=True))
    rows = []
    for run in collected.coverage.runs:
        states = []
        for name in plan.experiment.evaluations_of(run):
            state = "finished" if (run, name) in collected.protocols else "pending"
            states.append((name, "not measured" if (run, name) in unmeasured else state))
        rows.append((run, states))
    return rows
