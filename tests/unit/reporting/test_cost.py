"""The cost table: hours over attempts, tokens, peaks and disk, from the provenance of finished outputs."""

import io
import json

import pytest
from result_trees import EVALUATIONS, make_experiment
from rich.console import Console

from bitdistiller.plan import Plan
from bitdistiller.reporting.cost import COLUMNS, cost_frame, outputs, render_markdown, training_hours
from bitdistiller.reporting.stage import run as tabulate
from bitdistiller.reporting.terminal import show_results

CPU, GPU = "cpu: Intel, 2 cores", "4x NVIDIA H200"


def attempt(begin, seconds=None):
    return {"time": begin, "outcome": "finished"} | ({} if seconds is None else {"ended": begin + seconds})


def write(directory, stage, attempts=None, device=CPU, counts=None, details=None, **peak):
    """What a finished stage leaves."""
    directory.mkdir(parents=True, exist_ok=True)
    provenance = {"stage": stage, "device": device, "attempts": attempts or [attempt(0.0, 36.0)]}
    provenance |= {"peak_memory": {"host_bytes": 2_000_000} | peak, "details": details or {}}
    (directory / "provenance.json").write_text(json.dumps(provenance))
    files = {"a.bin": {"bytes": 700, "sha256": "0"}, "b/c.bin": {"bytes": 300, "sha256": "0"}}
    (directory / "digest.json").write_text(json.dumps({"files": files, "counts": counts or {}}))


@pytest.fixture
def plan(tmp_path):
    return Plan(make_experiment(), tmp_path / "results")


def line(plan, stage, run=""):
    frame = cost_frame(plan)
    return frame[(frame["stage"] == stage) & (frame["run"] == run)].iloc[0]


def test_every_output_of_the_plan_is_there_once(plan):
    found = list(outputs(plan))
    assert len({output.directory for output in found}) == len(found)
    stages = [output.stage for output in found]
    assert stages.count("generate") == plan.experiment.mixes["demo"].shards
    assert stages.count("clip") == len(plan.clips) == 3
    assert stages.count("evaluate") == len(list(plan.evaluations()))
    assert stages.count("export") == 5
    assert stages.count("train") == 3
    frame = cost_frame(plan)
    assert list(frame.columns) == list(COLUMNS)
    assert not frame["finished"].any()
    assert "| total" in render_markdown(frame)


def test_shards_and_layouts_have_rows_of_their_own(tmp_path):
    evaluations = EVALUATIONS | {"text": EVALUATIONS["text"] | {"shards": 3}}
    experiment = make_experiment(evaluations=evaluations)
    run = experiment.runs["rtn-int2"].model_copy(update={"layouts": ["dense", "gptq-v2"]})
    experiment = experiment.model_copy(update={"runs": {"rtn-int2": run}})
    table = Plan(experiment, tmp_path).table_recipe()
    stages = [output.stage for output in outputs(Plan(table, tmp_path))]
    assert stages.count("evaluate-shard") == 3
    assert stages.count("evaluate") == 3
    assert stages.count("convert") == 2


def test_hours_are_of_all_attempts_and_gpu_hours_of_all_gpus(plan):
    attempts = [attempt(100.0, 1800.0), attempt(5000.0), attempt(9000.0, 5400.0)]
    details = {"tokens": 123, "processes": 8}
    write(plan.train("int2"), "train", attempts, GPU, details=details, device_bytes=5_000_000_000)
    row = line(plan, "train", "int2")
    assert row["hours"] == pytest.approx(2.0)
    assert (row["gpus"], row["attempts"], row["unknown_attempts"]) == (8, 3, 1)
    assert row["gpu_hours"] == pytest.approx(16.0)
    assert (row["tokens"], row["disk_bytes"], row["gpu_bytes"]) == (123, 1000, 5_000_000_000)
    text = render_markdown(cost_frame(plan))
    assert "1 attempts were killed" in text
    assert "5.00 GB" in text


def test_hours_of_a_training_are_those_of_a_runs_own_jobs(plan):
    """Not of shared stages; nothing for a run that has not finished, or whose hours are not all known."""
    write(plan.mix("demo"), "mix")
    write(plan.train("int2"), "train", [attempt(0.0, 1800.0), attempt(5000.0, 1800.0)])
    write(plan.export("int2"), "export")
    write(plan.train("nf3"), "train", [attempt(0.0), attempt(5000.0, 1800.0)])
    assert training_hours(cost_frame(plan)) == {"int2": pytest.approx(1.0)}


def test_times_are_shown_in_the_terminal_and_not_in_the_files(plan, tmp_path):
    write(plan.train("int2"), "train", [attempt(0.0, 1800.0), attempt(5000.0, 1809.0)])
    console = Console(file=io.StringIO(), width=160)
    show_results(plan.experiment, plan.results, console)
    assert "1:00:09" in console.file.getvalue()
    tabulate(plan.experiment, results=plan.results, output=tmp_path / "out")
    said = {path.name for path in (tmp_path / "out").glob("*.*") if b"1:00:09" in path.read_bytes()}
    assert said == {"report.html"}


def test_a_processor_costs_no_gpu_hours(plan):
    write(plan.mix("demo"), "mix", counts={"tokens": 40})
    row = line(plan, "mix")
    assert (row["gpus"], row["gpu_hours"], row["tokens"]) == (0, 0.0, 40)
    assert row["hours"] == pytest.approx(0.01)


def test_damaged_provenance_is_not_finished(plan):
    write(plan.mix("demo"), "mix")
    (plan.mix("demo") / "provenance.json").write_text("{torn")
    assert not line(plan, "mix")["finished"]


def test_the_tables_have_it_and_their_digest_does_not_depend_on_it(plan, tmp_path):
    digests = []
    for seconds in (10.0, 20.0):
        write(plan.mix("demo"), "mix", [attempt(0.0, seconds)])
        tabulate(plan.experiment, results=plan.results, output=tmp_path / "out")
        digests.append((tmp_path / "out" / "digest.json").read_bytes())
        frame = cost_frame(plan)
        assert (tmp_path / "out" / "cost.csv").read_text() == frame.to_csv(index=False, lineterminator="\n")
        assert f"{seconds / 3600:.3f}" in (tmp_path / "out" / "cost.md").read_text()
    assert digests[0] == digests[1]
