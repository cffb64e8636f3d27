"""The report: every number on it is the CSV's, it needs nothing else, and text of models stays text."""

import json
from html.parser import HTMLParser

import pandas as pd
import pytest
from result_trees import RUNS, make_experiment, write_clip, write_metrics
from typer.testing import CliRunner

from bitdistiller.cli import app
from bitdistiller.plan import Plan
from bitdistiller.reporting.collect import collect
from bitdistiller.reporting.figures import CAPTIONS
from bitdistiller.reporting.plot_style import message_figure, svg_text
from bitdistiller.reporting.report.page import embedded, render
from bitdistiller.reporting.stage import run as tabulate


class Page(HTMLParser):
    """Elements and what a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.json, self._inside = [], [], None, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, attributes = self._inside[-1] if self._inside else ("", {})
        if tag == "script" and attributes.get("id") == "origins":
            self.json = json.loads(data)
        elif tag not in ("script", "style"):
            self.words.append(data)

    def all(self, tag, **wanted):
        found = [attributes for name, attributes in self.elements if name == tag]
        return [a for a in found if all(a.get(key) == value for key, value in wanted.items())]


def write_provenance(directory, stage):
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "stage": stage,
        "attempts": [{"time": 0.0, "ended": 9.0}],
        "fingerprint": "f" * 64,
        "recipe": {"seed": 42},
    }
    content |= {"device": "cpu: here", "versions": {"torch": "2.13.0"}, "peak_memory": {}, "details": {}}
    (directory / "provenance.json").write_text(json.dumps(content))


@pytest.fixture
def page(experiment, results):
    def make(drawn=None):
        return Page(render(collect(experiment, results), Plan(experiment, results), drawn or {}))

    return make


def write_predictions(results, run, outcomes, completion="1 + 1. The answer is: 2", evaluation="arithmetic"):
    records = [
        {"id": f"item-{i}", "prompt": f"What is {i}?", "completion": completion, "correct": right}
        for i, right in enumerate(outcomes)
    ]
    path = results / "teacher" / run / "evaluation" / evaluation / "predictions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_every_number_of_the_table_is_the_csvs(experiment, results, tmp_path):
    tabulate(experiment, results=results, output=tmp_path / "out")
    frame = pd.read_csv(tmp_path / "out" / "main.csv")
    page = Page((tmp_path / "out" / "report.html").read_text())
    shown = {button["data-key"]: float(button["data-value"]) for button in page.all("button") if "data-key" in button}
    main = frame[frame["main"]]
    assert shown == {f"{row.run}/{row.evaluation}": row.value for row in main.itertuples()}
    for row in frame.itertuples():
        metrics = {entry["metric"]: entry for entry in page.json[f"{row.run}/{row.evaluation}"]["metrics"]}
        assert metrics[row.metric]["value"] == row.value
        assert metrics[row.metric]["standard error"] == (None if pd.isna(row.standard_error) else row.standard_error)


def test_provenance_names_files_protocol_and_stages(experiment, results, page):
    plan = Plan(experiment, results)
    for directory, stage in ((plan.base("teacher"), "pretrain-demo"), (plan.train("int2"), "train")):
        write_provenance(directory, stage)
        (directory / "digest.json").write_text("{}")
    origin = page().json["int2/arithmetic"]
    assert origin["files"]["metrics"] == str(plan.evaluation("int2", "arithmetic") / "metrics.json")
    assert origin["protocol"] == {"temperature": 0.0}
    stages = {stage["directory"]: stage for stage in origin["stages"]}
    assert next(iter(stages)) == str(plan.base("teacher"))
    trained = stages[str(plan.train("int2"))]
    assert (trained["stage"], trained["seconds"], trained["recipe"]) == ("train", 9.0, {"seed": 42})
    assert stages[str(plan.export("int2"))]["missing"]
    assert page().json["fp16/text"]["stages"][0]["stage"] == "pretrain-demo"


def test_it_needs_nothing_else_and_ids_are_unique(results, page):
    write_clip(results)
    drawn = {name: svg_text(message_figure(name)) for name in CAPTIONS}
    made = page(drawn)
    assert len(made.all("figure")) == len(CAPTIONS)
    for _, attributes in made.elements:
        for name in ("src", "href", "action"):
            assert attributes.get(name, "#").startswith("#")
    ids = [attributes["id"] for _, attributes in made.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {"overview", "results", "plots", "clip", "cost"} <= set(ids)
    links = {link["href"][1:] for link in made.all("a")}
    assert links <= set(ids)
    assert made.all("html", lang="en")
    assert made.all("dialog", **{"aria-labelledby": "origin-title"})


def test_text_of_models_stays_text(results, page):
    attack = '</pre><script>alert("x")</script>'
    for run in RUNS:
        write_predictions(results, run, [True, False], attack)
    text = "".join(page().words)
    assert text.count(attack) == 2 * len(RUNS)
    assert len(page().all("script")) == 2
    assert "<" not in embedded({"a": "</script><!--"})


def test_items_on_which_runs_differ_come_first(results, page):
    for run in RUNS:
        write_predictions(results, run, [True] * 8 + [run == "fp16", True])
    made = page()
    words = "".join(made.words)
    assert words.index("What is 8?") < words.index("What is 0?")
    assert len(made.all("details")) == 6
    assert "✗ wrong" in words


def test_nothing_finished(experiment, tmp_path):
    page = Page(render(collect(experiment, tmp_path), Plan(experiment, tmp_path)))  # with the plots it draws then
    words = " ".join("".join(page.words).split())
    assert "No evaluation has finished yet." in words
    assert "0 of 6 runs finished" in words
    assert "○ text (pending)" in words
    assert page.json == {}


def test_what_could_not_be_measured_is_said(experiment, results, page):
    write_metrics(results, "int2", "code", None, reason="no sandbox")
    assert "code (not measured)" in " ".join("".join(page().words).split())
    assert page().json["int2/code"]["metrics"][0]["reason"] == "no sandbox"


def test_the_command_writes_one_file(results, tmp_path):
    config = tmp_path / "experiment.yaml"
    config.write_text(json.dumps(make_experiment().model_dump(mode="json", exclude_defaults=True)))
    output = tmp_path / "deep" / "page.html"
    options = ["report", "--config", str(config), "--results", str(results), "--output", str(output)]
    shown = CliRunner().invoke(app, options)
    assert shown.exit_code == 0, shown.output
    assert "needs nothing else" in shown.output
    assert output.stat().st_size < 2_000_000
