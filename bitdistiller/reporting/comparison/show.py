"""Comparisons as a table in the terminal, and the items that differ most."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from bitdistiller.reporting.comparison.paired import Comparison
from bitdistiller.reporting.comparison.predictions import Predictions

LONGEST = 400
"""Characters of a text that are shown."""
STYLES = {"better": "bold green", "worse": "bold red", "open": "dim"}
NOTE = (
    "B - A over the same items, with the {confidence:g} % interval of a paired bootstrap ({resamples} resamples). "
    "Wins: items on which B is better; p: exact sign test. Open: the interval holds 0."
)


def table(comparisons: Sequence[Comparison], a: str, b: str, confidence: float, resamples: int) -> Group:
    """Something a rich Console prints."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column("Evaluation", overflow="fold")
    for name in ("n", "A", "B", "B - A", "interval", "wins", "losses", "ties", "p"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("B is")
    for found in comparisons:
        grid.add_row(*_row(found))
    notes = [NOTE.format(confidence=100 * confidence, resamples=resamples)]
    notes += [f"{found.label}: {_alone(found)}." for found in comparisons if found.only_a or found.only_b]
    heads = [Text(f"A: {a}"), Text(f"B: {b}"), Text()]
    return Group(*heads, grid, Text(), *(Text(note, style="dim") for note in notes))


def _row(found: Comparison) -> list[str | Text]:
    def shown(value: float, sign: str = "") -> str:
        fraction = found.higher_is_better
        return format(100 * value, f"{sign}.2f") if fraction else format(value, f"{sign}.4f")

    unit = "" if found.higher_is_better else " [nats]"
    ends = f"{shown(found.low, '+')} .. {shown(found.high, '+')}"
    numbers = [str(found.items), shown(found.a), shown(found.b), shown(found.difference, "+"), ends]
    counts = [str(found.wins), str(found.losses), str(found.ties), f"{found.p:.2g}"]
    ratio = f"{found.verdict}"
    if found.kind == "perplexity":
        ratio += f" (perplexity x {math.exp(found.difference):.4g})"
    return [f"{found.label}{unit}", *numbers, *counts, Text(ratio, style=STYLES[found.verdict])]


def _alone(found: Comparison) -> str:
    parts = [f"{count} items only in {name}" for count, name in ((found.only_a, "A"), (found.only_b, "B")) if count]
    return " and ".join(parts) + ", left out"


def items(a: Predictions, b: Predictions, count: int) -> Group:
    """The items on which both differ most, with what each wrote where it wrote something."""
    shared = [item for item in a.records if item in b.records]
    shared.sort(key=lambda item: -abs(b.value(item) - a.value(item)))
    parts: list[Text] = []
    for item in [item for item in shared[:count] if a.value(item) != b.value(item)]:
        parts += [Text(f"\n{a.label}, item {item}", style="bold")]
        prompt = a.records[item].get("prompt")
        parts += [Text(_short(prompt), style="dim")] if prompt else []
        for name, side in (("A", a), ("B", b)):
            text = side.records[item].get("completion")
            written = f"\n{_short(text)}" if text is not None else ""
            parts.append(Text(f"{name}: {side.field} {side.value(item):.4g}{written}"))
    return Group(*(parts or [Text(f"{a.label}: both agree on every item")]))


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip() + " ..."


def as_rows(comparisons: Sequence[Comparison]) -> list[dict[str, object]]:
    """Every field of every comparison, and the verdict."""
    return [dataclasses.asdict(found) | {"verdict": found.verdict} for found in comparisons]


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """`as_rows` as CSV."""
    rows, text = as_rows(comparisons), io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def console() -> Console:
    """Where a table is printed; as wide as it is where nobody watches."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=160)
