r"""A table as LaTeX: a `table` environment in booktabs style, for `\input`; needs `\usepackage{booktabs}`."""

from __future__ import annotations

from bitdistiller.reporting.tables import Cell, Column, Row, Table

SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"}
SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": " "}
SPECIAL |= {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$"}
SPECIAL |= {"–": "--", "—": "---", "“": "``", "”": "''", "’": "'", "γ": r"$\gamma$", "…": r"\dots{}"}
ESCAPED = str.maketrans(SPECIAL)
STATUS = {"pending": "---", "unavailable": "n/a", "absent": ""}
FIXED_COLUMNS = "rllr"


def render(table: Table) -> str:
    """The whole environment, with a final newline."""
    columns = "".join("rrr" if column.has_published else "r" for column in table.columns) + "r" * len(table.training)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape(table.title)}. {escape(table.coverage)}}}",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{@{{}}{FIXED_COLUMNS}{columns}@{{}}}}",
        r"\toprule",
        *_head(table),
        *_body(table),
        r"\bottomrule",
        r"\end{tabular}",
        *_notes(table),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text in which LaTeX sees nothing special."""
    return text.translate(ESCAPED)


def _head(table: Table) -> list[str]:
    names, groups, rules = ["Bits", "Method", "Format", "Bits/weight"], [""] * 4, []
    for column in table.columns:
        if column.has_published:
            start = len(names) + 1
            groups.append(rf"\multicolumn{{3}}{{c}}{{{_heading(column)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + 2}}}")
            names += ["ours", f"paper{_mark(column.mark)}", r"$\Delta$"]
        else:
            groups.append("")
            names.append(_heading(column))
    groups += [""] * len(table.training)
    names += [escape(name) for name in table.training]
    upper = [" & ".join(groups) + r" \\", " ".join(rules)] if rules else []
    return [*upper, " & ".join(names) + r" \\"]


def _heading(column: Column) -> str:
    return f"{escape(column.label)} {escape(column.arrow)}"


def _body(table: Table) -> list[str]:
    lines = []
    width = len(FIXED_COLUMNS) + sum(1 + 2 * column.has_published for column in table.columns) + len(table.training)
    for section in table.sections:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{@{{}}l}}{{\textit{{{escape(section.title)}}}}} \\"]
        for bits, rows in section.bit_widths:
            lines.append(r"\midrule")
            lines += [_row(row, str(bits) if row is rows[0] else "", table.columns) for row in rows]
    return lines


def _row(row: Row, bits: str, columns: tuple[Column, ...]) -> str:
    texts = [bits, escape(row.method), escape(row.format), escape(row.bits_per_weight)]
    for cell, column in zip(row.cells, columns, strict=True):
        texts += [_cell(cell), *([_published(cell), _difference(cell)] if column.has_published else [])]
    return " & ".join([*texts, *row.training]) + r" \\"


def _cell(cell: Cell) -> str:
    text = STATUS.get(cell.status, "")
    if cell.value is not None:
        text = rf"\textbf{{{cell.value.latex}}}" if cell.best else cell.value.latex
        text += rf" {{\scriptsize$\pm$\,{cell.error.latex}}}" if cell.error else ""
    return text + _mark(cell.mark)


def _published(cell: Cell) -> str:
    return cell.published.text if cell.published else ""


def _difference(cell: Cell) -> str:
    if cell.difference is None:
        return ""
    error = rf" {{\scriptsize$\pm$\,{cell.difference_error.latex}}}" if cell.difference_error else ""
    return cell.difference.latex.replace("-", "$-$", 1) + error


def _mark(mark: str) -> str:
    return rf"\textsuperscript{{{mark}}}" if mark else ""


def _notes(table: Table) -> list[str]:
    notes = [f"{_mark(mark)}\\,{escape(text)}." for mark, text in table.footnotes]
    notes += [escape(note) for note in table.notes]
    return [
        r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize",
        *[f"{n}\\par" for n in notes],
        r"\end{minipage}",
    ]
