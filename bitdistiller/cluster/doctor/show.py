"""The findings as a table for the terminal, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bitdistiller.cluster.doctor.finding import Finding

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red", "skipped": "dim"}
FILE_WIDTH = 160
"""Columns where the output is no terminal."""


def show(findings: list[Finding], console: Console | None = None) -> None:
    """Print a row per finding, what to do below what was seen, and a count."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("Check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("Seen, and what to do", overflow="fold")
    name = ""
    for finding in findings:
        seen = Text(finding.seen)
        if finding.advice:
            seen.append(f"\n→ {finding.advice}", style="dim" if finding.level == "skipped" else "italic")
        level = Text(finding.level, style=STYLES[finding.level])
        table.add_row("" if finding.name == name else finding.name, level, seen)
        name = finding.name
    counts = Counter(finding.level for finding in findings)
    total = ", ".join(f"{counts[level]} {level}" for level in STYLES if counts[level])
    console.print(table, Text(), Text(total, style="bold"), sep="\n")


def as_json(findings: list[Finding], code: int) -> str:
    """The same for machines."""
    return json.dumps({"exit_code": code, "findings": [asdict(finding) for finding in findings]}, indent=2)
