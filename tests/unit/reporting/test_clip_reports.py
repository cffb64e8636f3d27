"""What the clip searches did: read from clip.json, in a table that stays small, in a plot, in the page."""

import io
import json
import logging

import pandas as pd
import pytest
from result_trees import PROJECTIONS, make_experiment, write_clip

from bitdistiller.reporting import clip_plot, clip_table
from bitdistiller.reporting.collect import collect
from bitdistiller.reporting.layer_names import short_kinds, split_name
from bitdistiller.reporting.stage import run

SEARCHES = [f"teacher/clip/demo-{name}-g128" for name in ("int3", "nf3", "int2")]


def rows_of(text: str) -> list[list[str]]:
    """The fields of every line of a Markdown table below its rule."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[field.strip() for field in line.strip("|").split(" | ")] for line in lines if "Block" not in line]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.31.mlp.down_proj", (31, "mlp.down_proj")),
        ("model.layers.2.block_sparse_moe.experts.7.w1", (2, "block_sparse_moe.experts.w1")),
        ("transformer.h.0.attn.c_proj", (0, "attn.c_proj")),
        ("lm_head", (0, "lm_head")),
    ],
)
def test_names_are_split_into_block_and_kind(name, expected):
    assert split_name(name) == expected


def test_kinds_are_as_short_as_they_can_be_told_apart():
    kinds = ["attn.c_proj", "mlp.c_proj", "attn.c_attn", "attn.c_proj"]
    assert short_kinds(kinds) == {"attn.c_proj": "attn.c_proj", "mlp.c_proj": "mlp.c_proj", "attn.c_attn": "c_attn"}


def test_every_layer_is_a_row(experiment, results):
    write_clip(results)
    collected = collect(experiment, results)
    clips = collected.clips
    assert len(clips) == 10
    last = clips.iloc[9]
    assert (last["layer"], last["block"], last["kind"]) == ("model.layers.1.mlp.down_proj", 1, "mlp.down_proj")
    assert (last["error_before"], last["error_after"], last["groups"]) == (10.0, 2.5, 20)
    assert (last["clip"], last["format"], last["calibration"]) == ("demo-int2-g128", "INT2", "demo")
    assert "teacher/clip/demo-int2-g128/clip.json" in collected.used


def test_unfinished_searches_are_absent_and_listed(experiment, results):
    write_clip(results)
    coverage = collect(experiment, results).coverage
    assert coverage.line == "6 of 6 runs finished."
    assert coverage.as_json()["finished_clips"] == SEARCHES[2:]
    assert coverage.as_json()["missing_clips"] == SEARCHES[:2]


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"format": "int2", "group_size": 128, "layers": []}', b"\xff", "negative"]
)
def test_damaged_reports_are_a_warning(experiment, results, caplog, content):
    path = write_clip(results, error_before=-1.0)
    if content != "negative":
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        collected = collect(experiment, results)
    assert collected.clips.empty
    assert str(path) in caplog.text
    assert len(caplog.records) == 1
    assert set(collected.coverage.as_json()["missing_clips"]) == set(SEARCHES)


def test_few_layers_have_a_row_each(experiment, results):
    write_clip(results)
    text = clip_table.render(clip_table.clip_tables(collect(experiment, results).clips))
    assert "**Demo teacher, INT2 g128, calibration demo**" in text
    rows = rows_of(text)
    assert rows[0] == ["0", "v\\_proj", "1", "0.25", "25.0 %", "0.900", "0.750"]
    assert rows[9][:3] == ["1", "down\\_proj", "10"]
    assert rows[10] == ["all", "all", "5.5", "1.38", "25.0 %", "0.900", "0.750"]


def test_many_layers_have_a_row_per_kind(experiment, results):
    write_clip(results, blocks=40)
    rows = rows_of(clip_table.render(clip_table.clip_tables(collect(experiment, results).clips)))
    assert [row[:2] for row in rows] == [
        *(["0–39", name.rpartition(".")[2].replace("_", "\\_")] for name in PROJECTIONS),
        ["all", "all"],
    ]
    assert rows[0][2] == f"{sum(range(1, 201, 5)) / 40:.3g}"


def test_an_error_of_zero_has_no_share(experiment, results):
    write_clip(results, error_before=0.0, error_after=0.0)
    clips = collect(experiment, results).clips
    assert {row[4] for row in rows_of(clip_table.render(clip_table.clip_tables(clips)))} == {"—"}
    assert clip_plot.clip_error(clips).axes[0].texts[0].get_text() == "No clip search has finished yet."


def test_plot_has_a_panel_per_kind_with_the_errors_of_its_blocks(experiment, results):
    write_clip(results, blocks=3)
    write_clip(results, "demo-nf3-g128", blocks=3)
    axes = clip_plot.clip_error(collect(experiment, results).clips).axes
    assert [panel.get_title(loc="left") for panel in axes] == 2 * [name.split(".")[1] for name in PROJECTIONS]
    before, after = axes[1].lines
    assert before.get_ydata().tolist() == [2.0, 7.0, 12.0]
    assert after.get_ydata().tolist() == [0.5, 1.75, 3.0]
    assert {panel.get_yscale() for panel in axes} == {"log"}
    headings = [text.get_text() for panel in axes for text in panel.texts if "g128" in text.get_text()]
    assert headings == [f"Demo teacher, {name} g128, calibration demo" for name in ("NF3", "INT2")]


def test_layers_of_one_kind_in_a_block_are_averaged_in_the_plot(experiment, results):
    path = write_clip(results, blocks=1)
    content = json.loads(path.read_text())
    for index, layer in enumerate(content["layers"]):
        layer["name"] = f"model.layers.0.experts.{index}.w1"
    path.write_text(json.dumps(content))
    (panel,) = clip_plot.clip_error(collect(experiment, results).clips).axes
    assert panel.lines[0].get_ydata().tolist() == [3.0]


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "0.001"), (20.0, "20"), (1e-5, "10⁻⁵"), (2e-5, "2×10⁻⁵"), (1e4, "10⁴")]
)
def test_labels_of_the_scale(value, text):
    assert clip_plot.tick_label(value) == text


def test_files_of_the_stage(experiment, results, tmp_path):
    write_clip(results)
    run(experiment, results=results, output=tmp_path / "out", work=tmp_path / "work")
    text = (tmp_path / "out" / "clip_error.csv").read_text()
    assert pd.read_csv(io.StringIO(text))["error_before"].tolist() == list(range(1, 11))
    page = (tmp_path / "out" / "main.html").read_text()
    assert "<caption>Clip search: Demo teacher, INT2 g128, calibration demo</caption>" in page
    assert page.count('<th scope="row">down_proj</th>') == 2


def test_nothing_searched(tmp_path):
    runs = {"rtn-int2": {"model": "teacher", "method": "rtn", "format": "int2"}}
    run(make_experiment(runs=runs), results=tmp_path, output=tmp_path / "out", work=tmp_path / "work")
    assert "No clip search has finished." in (tmp_path / "out" / "clip_error.md").read_text()
    assert (tmp_path / "out" / "clip_error.csv").read_text().startswith("model,model_title,clip,")
    assert (tmp_path / "out" / "clip_error.svg").stat().st_size > 1000
    assert "<caption>Clip search" not in (tmp_path / "out" / "main.html").read_text()
