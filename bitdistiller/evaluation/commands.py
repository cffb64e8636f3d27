"""The commands of trying a model, part of the command line: nothing but argument parsing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bitdistiller import config

commands = typer.Typer()
Checkpoint = Annotated[Path, typer.Argument(help="Any model directory: full-precision, student or packed.")]
Packed = Annotated[bool, typer.Option("--packed", help="Keep a packed checkpoint's weights packed in memory.")]
DtypeOption = Annotated[config.Dtype | None, typer.Option(help="Precision; by default what the model declares.")]


@commands.command()
def chat(
    checkpoint: Checkpoint,
    prompt: Annotated[str | None, typer.Option(help="Answer this one text and end.")] = None,
    system: Annotated[str, typer.Option(help="First message of a model with a chat template.")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Continue texts, though there is a chat template.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy decoding.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Probability of the likeliest tokens kept.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of every answer.")] = 42,
    dtype: DtypeOption = None,
    packed: Packed = False,
) -> None:
    """Talk to a model in the terminal, with milliseconds per token; without a chat template it continues texts."""
    from bitdistiller.evaluation.chat import HELP, Chat, converse
    from bitdistiller.evaluation.subject import Subject
    from bitdistiller.generation.engine import Sampling

    subject = Subject.load(checkpoint, dtype, packed=packed)
    conversation = Chat(subject, Sampling(max_new_tokens, temperature, top_p), seed, raw, system)

    def show(piece: str) -> None:
        typer.echo(piece, nl=False)
        sys.stdout.flush()

    def remark(line: str) -> None:
        typer.secho(line, err=True, dim=True)

    if prompt is None and sys.stdin.isatty():
        remark(HELP)
    converse(conversation, [prompt] if prompt is not None else sys.stdin, show, remark)


@commands.command()
def speed(
    checkpoint: Checkpoint,
    beside: Annotated[Path | None, typer.Option(help="Another model, measured in turns with the first.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 512,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens written after it.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Sequences at once.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions, after one that warms up.")] = 5,
    dtype: DtypeOption = None,
    packed: Packed = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write all numbers to this file.")] = None,
) -> None:
    """Measure prefill and decoding in tokens per second, and memory, of one model or of two in turns."""
    from rich.console import Console

    from bitdistiller.evaluation import show_speed
    from bitdistiller.evaluation.speed import Load, machine, measure

    load = Load(prompt_tokens, new_tokens, batch, repeats)
    speeds = measure([checkpoint, *([beside] if beside else [])], load, dtype, packed)
    rows = show_speed.as_rows(speeds, machine())
    if csv:
        csv.write_text(show_speed.as_csv(rows), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    terminal = Console()
    (terminal if terminal.is_terminal else Console(width=160)).print(show_speed.table(speeds, machine()))
