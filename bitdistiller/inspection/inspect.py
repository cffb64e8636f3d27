"""`bitdistiller inspect`: look at every layer once, then print, write and draw what was seen."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.progress import track

from bitdistiller.errors import InputError
from bitdistiller.inspection.rows import LayerRow
from bitdistiller.inspection.sources import Options, Source, open_source
from bitdistiller.inspection.table import as_csv, as_json, show
from bitdistiller.reporting.plot_style import FILE_OPTIONS
from bitdistiller.stages.files import write_text


def inspect(
    path: Path,
    options: Options,
    *,
    layers: str | None = None,
    plot: Path | None = None,
    csv: Path | None = None,
    as_machine: bool = False,
    console: Console | None = None,
) -> None:
    """
    Print the table (or, `as_machine`, its JSON) of a directory, and write the CSV file and the plot that are asked for.

    layers: part of a layer's name, or a pattern with * and ?. One layer's tensors are in memory at a time.
    Raises InputError for options that do not fit, before any weight is read.
    """
    _check_files(plot, csv)
    source = open_source(path, options)
    if plot is not None and not source.has_ratios:
        raise InputError(f"--plot: {path} has no clip ratios; give --clip, or the output directory of the stage clip")
    rows = _rows(source, _chosen(source, path, layers))
    if plot is not None:
        _plot(plot, path, source, rows)
    if csv is not None:
        write_text(csv, as_csv(rows))
    console = console or Console()
    if as_machine:
        console.file.write(json.dumps({"path": str(path)} | as_json(source, rows), indent=2) + "\n")
    else:
        show(source, rows, console)


def _check_files(plot: Path | None, csv: Path | None) -> None:
    if plot is not None and plot.suffix not in FILE_OPTIONS:
        raise InputError(f"--plot: {plot}; accepted: a file that ends with {' or '.join(FILE_OPTIONS)}")
    for option, file in (("plot", plot), ("csv", csv)):
        if file is not None and not file.parent.is_dir():
            raise InputError(f"--{option}: {file.parent}: no such directory")


def _chosen(source: Source, path: Path, pattern: str | None) -> list[str]:
    if pattern is None:
        return source.layers
    glob = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    chosen = [layer for layer in source.layers if fnmatchcase(layer, glob)]
    if not chosen:
        raise InputError(f"--layers: {pattern!r} is in no layer of {path}; its first is {source.layers[0]}")
    return chosen


def _rows(source: Source, layers: list[str]) -> list[LayerRow]:
    progress = Console(stderr=True)
    shown = track(layers, "reading layers", console=progress, transient=True, disable=not progress.is_terminal)
    return [source.row(layer) for layer in shown]


def _plot(file: Path, path: Path, source: Source, rows: list[LayerRow]) -> None:
    from bitdistiller.inspection.plot import clip_ratios
    from bitdistiller.reporting.plot_style import save_as

    if all(row.maximum_kept is None for row in rows):
        raise InputError("--plot: none of the chosen layers is clipped")
    quantization = source.quantization
    title = f"{path.resolve().name}, {quantization.format.upper()} g{quantization.group_size}"
    save_as(clip_ratios(rows, title), file)
