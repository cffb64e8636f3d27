"""A table as Markdown: GitHub's pipe table, aligned so that the text itself is readable."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from bitdistiller.reporting.tables import Cell, Column, Row, Table

ESCAPED = str.maketrans({character: f"\\{character}" for character in "\\|*_`<>[]#"})
STATUS = {"pending": "— *pending*", "unavailable": "n/a", "absent": ""}


def render(table: Table) -> str:
    """The whole document, with a final newline."""
    head, alignments = _head(table)
    body = pipe_table([head, *_rows(table)], alignments)
    notes = [f"{_mark(mark)} {escape(text)}." for mark, text in table.footnotes]
    small = [*notes, *(escape(note) for note in table.notes)]
    parts = [f"### {escape(table.title)}", f"*{escape(table.coverage)}*", body, "  \n".join(small)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text in which Markdown sees nothing special."""
    return text.translate(ESCAPED).replace("\n", " ")


def pipe_table(lines: Sequence[Sequence[str]], alignments: Sequence[bool]) -> str:
    """Escaped texts as a pipe table; the first line is the heading, `alignments` says which columns stand right."""
    widths = [max(3, *(len(line[index]) for line in lines)) for index in range(len(alignments))]
    rules = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, alignments, strict=True)]
    return "\n".join(_line(line, widths, alignments) for line in (lines[0], rules, *lines[1:]))


def _head(table: Table) -> tuple[list[str], list[bool]]:
    fixed = [("Model", False)] * (len(table.sections) > 1)
    fixed += [("Bits", True), ("Method", False), ("Format", False), ("Bits/weight", True)]
    training = [(escape(name), True) for name in table.training]
    names, alignments = zip(*fixed, *chain.from_iterable(map(_headings, table.columns)), *training, strict=True)
    return list(names), list(alignments)


def _headings(column: Column) -> list[tuple[str, bool]]:
    names = [f"{escape(column.label)} {column.arrow}"]
    names += [f"paper{_mark(column.mark)}", "Δ"] if column.has_published else []
    return [(name, True) for name in names]


def _rows(table: Table) -> list[list[str]]:
    lines = []
    for section in table.sections:
        name = escape(section.title)
        for bits, rows in section.bit_widths:
            width = str(bits)
            for row in rows:
                lines.append([name] * (len(table.sections) > 1) + [width, *_row(row, table.columns)])
                name = width = ""
    return lines


def _row(row: Row, columns: tuple[Column, ...]) -> list[str]:
    texts = [escape(row.method), escape(row.format), row.bits_per_weight]
    for cell, column in zip(row.cells, columns, strict=True):
        texts += [_cell(cell), *([_published(cell), _difference(cell)] if column.has_published else [])]
    return [*texts, *row.training]


def _cell(cell: Cell) -> str:
    text = STATUS.get(cell.status, "")
    if cell.value is not None:
        text = f"**{cell.value.plain}**" if cell.best else cell.value.plain
        text += f" ± {cell.error.plain}" if cell.error else ""
    return text + _mark(cell.mark)


def _published(cell: Cell) -> str:
    return cell.published.text if cell.published else ""


def _difference(cell: Cell) -> str:
    if cell.difference is None:
        return ""
    return cell.difference.plain + (f" ± {cell.difference_error.plain}" if cell.difference_error else "")


def _mark(mark: str) -> str:
    return f"<sup>{mark}</sup>" if mark else ""


def _line(texts: Sequence[str], widths: list[int], alignments: Sequence[bool]) -> str:
    padded = [
        text.rjust(width) if right else text.ljust(width)
        for text, width, right in zip(texts, widths, alignments, strict=True)
    ]
    return f"| {' | '.join(padded)} |"
