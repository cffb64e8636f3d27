"""The published numbers: how many, each with its source, and consistent with themselves."""

import csv
import statistics

import pytest

from bitdistiller.reporting.published import PAPERS, Published, papers

ROWS = {"bitdistiller": 273, "onebit": 108, "llm-qat": 72}
AVERAGES = {  # the metrics that a paper's average is over, and how far rounding may carry it
    "bitdistiller": (("mmlu", "piqa", "hellaswag", "winogrande", "arc_c"), 0.0051),
    "onebit": (("winogrande", "hellaswag", "piqa", "boolq", "arc_e", "arc_c"), 0.011),
    "llm-qat": (("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_e", "arc_c", "obqa"), 0.065),
}


def rows(name):
    with (PAPERS / f"{name}.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_these_papers_are_at_hand():
    assert papers() == sorted(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_every_number_is_there_once_and_has_a_source(name):
    found = rows(name)
    assert len(found) == ROWS[name]
    assert all(row["source"] for row in found)
    keys = {tuple(row[key] for key in ("table", "model", "method", "bits", "format", "metric")) for row in found}
    assert len(keys) == len(found)
    for row in found:
        float(row["value"])


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_recompute(name):
    metrics, rounding = AVERAGES[name]
    table = {}
    for row in rows(name):
        table.setdefault((row["table"], row["model"], row["method"], row["bits"], row["format"]), {})[row["metric"]] = (
            row
        )
    averaged = {key: values for key, values in table.items() if "avg" in values}
    assert averaged
    for key, values in averaged.items():
        mean = statistics.mean(float(values[metric]["value"]) for metric in metrics)
        assert mean == pytest.approx(float(values["avg"]["value"]), abs=rounding), key


@pytest.mark.parametrize("name", ROWS)
def test_protocols_are_of_published_metrics_and_have_sources(name):
    published = Published(name)
    known = {row["metric"] for row in rows(name)}
    with (PAPERS / f"{name}.protocol.csv").open(newline="", encoding="utf-8") as handle:
        entries = list(csv.DictReader(handle))
    assert entries
    for entry in entries:
        assert entry["metric"] in known
        assert entry["source"]
        assert entry["text"]
        assert published.protocol(entry["metric"])


def test_numbers_are_found():
    onebit, llm_qat = Published("onebit"), Published("llm-qat")
    place = {"model": "LLaMA-7B", "group_size": None}
    full = onebit.find(**place, metric="ppl", method="16-bit", bits=16, number_format=None)
    assert full.text == "5.68"
    assert llm_qat.protocol("piqa")[1].key == "lm_eval"
