"""The stage `tabulate`: tables and plots of an experiment from whatever is finished."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bitdistiller.config import Experiment
from bitdistiller.plan import Plan
from bitdistiller.reporting import ablation, clip_table, latex, markdown, page
from bitdistiller.reporting.ablation import ablation_frame
from bitdistiller.reporting.build import build_table
from bitdistiller.reporting.card import cards
from bitdistiller.reporting.collect import Collected, collect
from bitdistiller.reporting.cost import cost_frame
from bitdistiller.reporting.cost import render_markdown as render_cost
from bitdistiller.reporting.figures import CAPTIONS, draw
from bitdistiller.reporting.plot_style import save
from bitdistiller.reporting.report.page import render as render_report
from bitdistiller.reporting.tables import Table
from bitdistiller.stages import Stage, open_stage
from bitdistiller.stages.files import write_json, write_text

VERSION = 5
CARDS = "cards"
COST = ("cost.csv", "cost.md")
REPORT = "report.html"
ON_THE_TABLES_PAGE = ("perplexity_vs_bits", "training_curves", "clip_error")


def run(
    experiment: Experiment,
    *,
    results: Path,
    output: Path,
    work: Path | None = None,
    time_budget: float | None = None,
) -> None:
    """
    Write main.csv, main.md, main.tex, main.html, clip_error.csv, clip_error.md, the plots as SVG and PNG,
    ablation.csv, ablation.md, ablation.tex, ablation.html, coverage.json, cards/<run>.md, cost.csv, cost.md and
    report.html into `output`.

    `results` is the directory with `{model}/{run}/`; missing and damaged results are reported, never made. All files
    but those of the cost and the report are byte-identical for identical results. Raises InputError when
    `experiment.paper` is unknown.
    """
    collected = collect(experiment, results)
    recipe = experiment.model_dump(mode="json", exclude_defaults=True, exclude={"resources"})
    with open_stage(
        "tabulate",
        version=VERSION,
        recipe=recipe,
        inputs=collected.used,
        output=output,
        work=work,
        time_budget=time_budget,
    ) as stage:
        table = build_table(experiment, collected)
        _write_tables(stage, table, collected)
        drawn = _write_plots(stage, table, collected)
        coverage = collected.coverage
        write_json(stage.output_file("coverage.json"), coverage.as_json())
        _write_ablation(stage, experiment, ablation_frame(experiment, collected, Path(results)))
        _write_cards(stage, cards(experiment, collected, Path(results)))
        _write_cost(stage, cost_frame(Plan(experiment, Path(results))))
        write_text(stage.output_file(REPORT), render_report(collected, Plan(experiment, Path(results)), drawn))
        counts = {"runs": len(coverage.runs), "finished": coverage.finished}
        stage.finish(counts=counts, apart=(*COST, REPORT))


def _write_tables(stage: Stage, table: Table, collected: Collected) -> None:
    write_text(stage.output_file("main.csv"), collected.frame.to_csv(index=False, lineterminator="\n"))
    write_text(stage.output_file("main.md"), markdown.render(table))
    write_text(stage.output_file("main.tex"), latex.render(table))
    write_text(stage.output_file("clip_error.csv"), collected.clips.to_csv(index=False, lineterminator="\n"))
    write_text(stage.output_file("clip_error.md"), clip_table.render(clip_table.clip_tables(collected.clips)))


def _write_ablation(stage: Stage, experiment: Experiment, frame: pd.DataFrame) -> None:
    write_text(stage.output_file("ablation.csv"), frame.to_csv(index=False, lineterminator="\n"))
    write_text(stage.output_file("ablation.md"), ablation.render_markdown(experiment, frame))
    write_text(stage.output_file("ablation.tex"), ablation.render_latex(experiment, frame))
    title = f"Ablation: {experiment.title or experiment.experiment}"
    rows = ablation.table_rows(experiment, frame) if experiment.ablation else []
    write_text(stage.output_file("ablation.html"), page.render_ablation(title, rows, ablation.NOTE))


def _write_cards(stage: Stage, texts: dict[str, str]) -> None:
    directory = stage.output_directory(CARDS)
    for run, text in texts.items():
        write_text(directory / f"{run}.md", text)


def _write_cost(stage: Stage, frame: pd.DataFrame) -> None:
    table, text = COST
    write_text(stage.output_file(table), frame.to_csv(index=False, lineterminator="\n"))
    write_text(stage.output_file(text), render_cost(frame))


def _write_plots(stage: Stage, table: Table, collected: Collected) -> dict[str, str]:
    """Write the plots, and the page of the table with some of them; returns their SVG texts."""
    texts = {}
    for name, figure in draw(collected).items():
        stem = stage.output_file(name)
        save(figure, stem)
        texts[name] = stem.with_suffix(".svg").read_text(encoding="utf-8")
    inline = [(name, CAPTIONS[name], texts[name]) for name in ON_THE_TABLES_PAGE]
    write_text(stage.output_file("main.html"), page.render(table, inline, clip_table.clip_tables(collected.clips)))
    return texts
