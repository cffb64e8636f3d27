"""Two runs beside each other: pairs of items, intervals, verdicts, and what is refused."""

import csv
import json
import random

import numpy as np
import pytest
from reference import comparison as naive
from typer.testing import CliRunner

from bitdistiller.cli import app
from bitdistiller.errors import InputError
from bitdistiller.reporting.comparison import paired, predictions


def write(folder, kind, records, protocol=None, label="Words", **entry):
    """An output directory of `evaluate`."""
    folder.mkdir(parents=True)
    metric = {"value": 0.5, "n": len(records)} | entry
    content = {"evaluation": folder.name, "kind": kind, "label": label, "metrics": {"m": metric}}
    (folder / "metrics.json").write_text(json.dumps(content | {"protocol": protocol or {}}))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def math_records(outcomes):
    return [{"id": i, "prompt": f"p{i}", "completion": f"c{i}", "correct": bool(x)} for i, x in enumerate(outcomes)]


@pytest.fixture
def pair(tmp_path):
    """Two runs with 120 questions, B right on twenty more."""
    rng = random.Random(0)
    a = [rng.random() < 0.5 for _ in range(120)]
    b = [x or i % 3 == 0 for i, x in enumerate(a)]
    folders = (tmp_path / "results" / "m" / name / "evaluation" / "math" for name in "ab")
    return [write(folder, "math", math_records(x)) for folder, x in zip(folders, (a, b), strict=True)]


@pytest.mark.parametrize("cells", [1, 64, 2**22])
def test_the_interval_is_the_naive_one(monkeypatch, cells):
    monkeypatch.setattr(paired, "CELLS", cells)
    rng = np.random.default_rng(3)
    differences, weights = rng.normal(size=20), rng.integers(1, 9, size=20).astype(float)
    expected = naive.interval(differences, weights, 300, 0.9, 7)
    assert paired.interval(differences, weights, 300, 0.9, 7) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 0), (5, 5), (12, 4), (1, 30)])
def test_the_sign_test_is_the_naive_one(wins, losses):
    assert paired.sign_test(wins, losses) == pytest.approx(naive.sign_test(wins, losses), rel=1e-12)


def test_the_sign_test_of_a_large_benchmark():
    assert 0 < paired.sign_test(5200, 4842) < 0.001


def test_wins_losses_and_the_verdict(pair):
    a, b = map(predictions.read, pair)
    found = paired.compare(a, b)
    gained = sum(b.value(item) > a.value(item) for item in a.records)
    assert (found.wins, found.losses, found.ties) == (gained, 0, 120 - gained)
    assert found.difference == pytest.approx(gained / 120)
    assert 0 < found.low < found.difference < found.high
    assert found.verdict == "better"
    assert paired.compare(b, a).verdict == "worse"
    same = paired.compare(a, a)
    assert (same.verdict, same.low, same.high, same.p) == ("open", 0, 0, 1)


def test_chance_is_open(tmp_path):
    rng = random.Random(1)
    sides = [write(tmp_path / n, "math", math_records([rng.random() < 0.5 for _ in range(50)])) for n in "ab"]
    assert paired.compare(*map(predictions.read, sides)).verdict == "open"


def test_perplexities_are_weighted_by_tokens_and_less_is_better(tmp_path):
    losses = {"a": [2.0, 3.0, 4.0], "b": [1.9, 2.9, 4.5]}
    tokens = [10, 10, 1]
    for name, values in losses.items():
        records = [{"index": i, "tokens": t, "nll": x} for i, (t, x) in enumerate(zip(tokens, values, strict=True))]
        write(tmp_path / name, "perplexity", records)
    found = paired.compare(*(predictions.read(tmp_path / name) for name in losses))
    assert found.a == pytest.approx((20 + 30 + 4) / 21)
    assert found.difference == pytest.approx((-0.1 * 20 + 0.5) / 21)
    assert (found.wins, found.losses) == (2, 1)


def test_choices_count_the_metric_of_their_protocol(tmp_path):
    records = [{"task": task, "id": "0", "acc": 1.0, "acc_norm": 0.0} for task in ("x", "y")]
    side = predictions.read(write(tmp_path / "a", "multiple_choice", records, {"metric": "acc_norm"}))
    assert [side.value(item) for item in side.records] == [0.0, 0.0]
    assert list(side.records) == ["x 0", "y 0"]


def test_items_of_one_side_are_counted_and_left_out(tmp_path):
    a = write(tmp_path / "a", "math", math_records([1, 0, 1]))
    b = write(tmp_path / "b", "math", math_records([1, 1]))
    found = paired.compare(predictions.read(a), predictions.read(b))
    assert (found.items, found.only_a, found.only_b) == (2, 1, 0)
    assert "1 items only in A" in CliRunner().invoke(app, ["compare", str(a), str(b)]).output


def test_runs_without_a_common_item_are_refused(tmp_path):
    a = write(tmp_path / "a", "math", [{"id": "x", "correct": True}])
    b = write(tmp_path / "b", "math", [{"id": "y", "correct": True}])
    with pytest.raises(InputError, match="no item in common"):
        paired.compare(predictions.read(a), predictions.read(b))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "code"}, "kind"),
        ({"protocol": {"temperature": 0.2}}, "temperature is null in A and 0.2 in B"),
        ({"reason": "no isolation", "value": None, "outcomes": [None]}, "not measured"),
    ],
)
def test_what_is_not_comparable_is_refused(tmp_path, change, message):
    a = write(tmp_path / "a", "math", math_records([1]))
    options = {"kind": "math", "records": math_records([1])} | change
    if "outcomes" in options:
        options["records"] = [{"id": 0, "correct": None}]
        options.pop("outcomes")
    if options["kind"] == "code":
        options["records"] = [{"id": 0, "passed": True}]
    b = write(tmp_path / "b", **options)
    with pytest.raises(InputError, match=message) as error:
        paired.compare(predictions.read(a), predictions.read(b))
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_refused(tmp_path):
    folder = write(tmp_path / "a", "math", math_records([1]))
    files = {"predictions.jsonl": {"sha256": "0", "bytes": 1}, "metrics.json": {"sha256": "0", "bytes": 1}}
    (folder / "digest.json").write_text(json.dumps({"files": files}))
    with pytest.raises(InputError, match="evaluate again"):
        predictions.read(folder)


def test_runs_are_found_by_name_and_by_directory(pair, tmp_path):
    results = tmp_path / "results"
    for name in ("a", str(results / "m" / "a"), str(pair[0])):
        assert predictions.evaluations(name, results) == {"math": pair[0]}
    with pytest.raises(InputError, match="no finished evaluation"):
        predictions.evaluations("c", results)
    (results / "other" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="more than one run"):
        predictions.evaluations("a", results)


def test_the_command_prints_writes_and_shows_items(pair, tmp_path):
    runner, file = CliRunner(), tmp_path / "out.csv"
    sides = [str(tmp_path / "results" / "m" / name) for name in "ab"]
    shown = runner.invoke(app, ["compare", *sides, "--csv", str(file), "--items", "2"])
    assert shown.exit_code == 0
    assert "better" in shown.output
    assert shown.output.count("Words, item") == 2
    (row,) = csv.DictReader(file.open())
    (entry,) = json.loads(runner.invoke(app, ["compare", *sides, "--json"]).output)
    assert float(row["difference"]) == entry["difference"]
    assert entry["verdict"] == "better"
    refused = runner.invoke(app, ["compare", *sides, "--evaluation", "code"])
    assert isinstance(refused.exception, InputError)
    assert "in common: math" in str(refused.exception)
