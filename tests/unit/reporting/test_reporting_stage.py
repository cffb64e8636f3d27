"""The stage: all files, equal bytes for equal input, and work with nothing finished."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from result_trees import RUNS, make_experiment, write_history, write_metrics, write_run

from bitdistiller.reporting import plots
from bitdistiller.reporting.collect import collect
from bitdistiller.reporting.page import inline_svg
from bitdistiller.reporting.stage import run

FILES = {"main.csv", "main.md", "main.tex", "main.html", "coverage.json"}
FILES |= {"clip_error.csv", "clip_error.md", "cost.csv", "cost.md", "report.html"}
FILES |= {"ablation.csv", "ablation.md", "ablation.tex", "ablation.html"}
PLOTS = ("perplexity_vs_bits", "accuracy_vs_bits", "training_curves", "clip_error", "clip_ratio")
FILES |= {f"{name}.{suffix}" for name in PLOTS for suffix in ("svg", "png")}


def tabulate(experiment, results: Path, root: Path) -> dict[str, bytes]:
    """The declared files of one run of the stage."""
    run(experiment, results=results, output=root / "out", work=root / "work")
    files = (path for path in (root / "out").iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in files if path.name != "provenance.json"}


def test_files_and_their_bytes(experiment, results, tmp_path):
    first = tabulate(experiment, results, tmp_path / "a")
    assert set(first) == FILES | {"digest.json"}
    assert tabulate(experiment, results, tmp_path / "b") == first
    assert tabulate(experiment, results, tmp_path / "a") == first


def test_nothing_finished(experiment, tmp_path):
    files = tabulate(experiment, tmp_path / "none", tmp_path)
    assert json.loads(files["coverage.json"])["line"].startswith("0 of 6 runs finished; missing: fp16")
    assert b"0 of 6 runs finished" in files["main.html"]
    assert b"pending" in files["main.md"]
    assert pd.read_csv(tmp_path / "out/main.csv").empty


def test_damaged_files_everywhere(experiment, results, tmp_path):
    for path in sorted(results.rglob("*.json*")):
        path.write_text('{"torn')
    files = tabulate(experiment, results, tmp_path)
    assert json.loads(files["coverage.json"])["finished"] == 0


def test_csv_gives_back_the_frame(experiment, results, tmp_path):
    tabulate(experiment, results, tmp_path)
    frame = collect(experiment, results).frame
    again = pd.read_csv(tmp_path / "out/main.csv", keep_default_na=False, na_values=[""])
    assert again["value"].tolist() == frame["value"].tolist()
    assert again["n"].tolist() == frame["n"].tolist()


def test_page_needs_no_network_and_holds_all_plots(experiment, results, tmp_path):
    text = tabulate(experiment, results, tmp_path)["main.html"].decode()
    assert not re.search(r"https?:|@import|src=|<script", text)
    assert text.count("<svg role=") == 3
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "ids of the plots must not meet"
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used <= set(ids)


def test_svg_files_carry_no_date_or_network_reference(experiment, results, tmp_path):
    text = tabulate(experiment, results, tmp_path)["perplexity_vs_bits.svg"].decode()
    assert "<metadata>" not in text
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"|<!DOCTYPE[^>]*>', "", text)


def test_colours_of_the_page_follow_its_theme():
    body = '<path id="p" style="fill: #1f2328"/><use href="#p"/></svg>'
    svg = f'<?xml?>\n<svg height="1pt" viewBox="0 0 2 1" xmlns="x">{body}'
    text = inline_svg(svg, "plot", 'A "caption"')
    assert text == (
        '<svg role="img" aria-label="A &#34;caption&#34;" viewBox="0 0 2 1">'
        '<path id="plot-p" style="fill: var(--ink)"/><use href="#plot-p"/></svg>'
    )


def texts(figure) -> list[str]:
    return [text.get_text() for panel in figure.axes for text in panel.texts]


def test_points_are_labelled(experiment, results):
    found = texts(plots.perplexity_vs_bits(collect(experiment, results).frame))
    assert set(found) == {
        "16-bit 5.10",
        "BitDistiller NF3  5.28",
        "BitDistiller INT3  5.30",
        "BitDistiller INT2  6.40",
        "Clipped RTN INT2  60.00",
        "RTN INT2  4000",
    }


def test_labels_do_not_overlap(experiment, results):
    figure = plots.perplexity_vs_bits(collect(experiment, results).frame)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])


@pytest.mark.parametrize(("value", "scale"), [(4000.0, "log"), (7.0, "linear")])
def test_scale_follows_the_range(experiment, results, value, scale):
    write_metrics(results, "rtn-int2", "text", value)
    write_metrics(results, "clip-int2", "text", 6.9)
    figure = plots.perplexity_vs_bits(collect(experiment, results).frame)
    assert figure.axes[0].get_yscale() == scale


def test_plots_of_odd_input(experiment, results):
    write_metrics(results, "rtn-int2", "text", float("inf"))
    write_metrics(results, "clip-int2", "text", None, reason="no text")
    figure = plots.perplexity_vs_bits(collect(experiment, results).frame)
    assert "RTN INT2  ∞" not in texts(figure)


def test_one_panel_per_trained_run(experiment, tmp_path):
    for name in RUNS:
        write_run(tmp_path, name)
    figure = plots.training_curves(collect(experiment, tmp_path).history)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert [title.split("   ")[0] for title in titles] == ["BitDistiller INT3", "BitDistiller NF3", "BitDistiller INT2"]
    assert "training" in texts(figure)


def test_a_history_without_evaluation(tmp_path):
    write_history(tmp_path, 1.0)
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1, "loss": 0.0}\n')
    experiment = make_experiment()
    folder = tmp_path / "teacher/int2/train"
    folder.mkdir(parents=True)
    path.rename(folder / "history.jsonl")
    assert texts(plots.training_curves(collect(experiment, tmp_path).history)) == ["training"]
