"""The commands of results, part of the command line: nothing but argument parsing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bitdistiller.arguments import Config
from bitdistiller.errors import InputError
from bitdistiller.recipes import load_experiment

commands = typer.Typer()


@commands.command()
def compare(
    a: Annotated[str, typer.Argument(help="A run's name or directory, or the output of one evaluation.")],
    b: Annotated[str, typer.Argument(help="The same of the other run.")],
    evaluation: Annotated[list[str], typer.Option(help="Only this evaluation; repeatable.")] = [],  # noqa: B006
    resamples: Annotated[int, typer.Option(min=100, help="Resamples of the bootstrap.")] = 10_000,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Share the interval is to hold.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    items: Annotated[int, typer.Option(min=0, help="Show so many of the items that differ most.")] = 0,
    results: Annotated[Path, typer.Option(help="Root of all results.")] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write all numbers to this file.")] = None,
) -> None:
    """Say whether run B is better than run A: wins and losses item by item, with a paired bootstrap interval."""
    from bitdistiller.reporting.comparison import paired, predictions, show

    found = [predictions.evaluations(run, results) for run in (a, b)]
    alone = len(found[0]) == len(found[1]) == 1
    names = [name for name in found[0] if name in found[1] and (not evaluation or name in evaluation)]
    pairs = [[side[name] for side in found] for name in names]
    if alone and not evaluation:
        pairs = [[next(iter(side.values())) for side in found]]
    if not pairs:
        both = ", ".join(sorted(set(found[0]) & set(found[1]))) or "none"
        raise InputError(f"{a} and {b} have no such evaluation in common; in common: {both}")
    sides = [[predictions.read(path) for path in pair] for pair in pairs]
    compared = [paired.compare(*pair, resamples, confidence, seed) for pair in sides]
    if csv:
        csv.write_text(show.as_csv(compared), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(show.as_rows(compared), indent=2))
        return
    terminal = show.console()
    terminal.print(show.table(compared, a, b, confidence, resamples))
    for pair in sides if items else []:
        terminal.print(show.items(*pair, items))


@commands.command()
def publish(
    run: Annotated[str, typer.Argument(help="Run of the experiment whose checkpoint is finished.")],
    destination: Annotated[Path, typer.Argument(help="Directory to write to; new or empty.")],
    config: Config = Path("config.yaml"),
    results: Annotated[Path, typer.Option(help="Root of all results.")] = Path("results"),
) -> None:
    """Put a run's packed checkpoint, checked, and its model card into one directory, ready to be shared."""
    from bitdistiller.reporting.publish import publish as put_together

    for line in put_together(load_experiment(config), run, destination, results):
        typer.echo(line)


@commands.command()
def report(
    config: Config = Path("config.yaml"),
    results: Annotated[Path, typer.Option(help="Root of all results.")] = Path("results"),
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("report.html"),
) -> None:
    """Write one page of whatever is finished: tables, plots, generations, cost, and where every number comes from."""
    from bitdistiller.plan import Plan
    from bitdistiller.reporting.collect import collect
    from bitdistiller.reporting.report.page import render
    from bitdistiller.stages.files import write_text

    experiment = load_experiment(config)
    write_text(output, render(collect(experiment, results), Plan(experiment, results)))
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, needs nothing else")
