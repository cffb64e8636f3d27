"""collect: values, published numbers, coverage, and files that are missing or damaged."""

import json
import logging

import pandas as pd
import pytest
from result_trees import RUNS, make_experiment, write_metrics, write_run

from bitdistiller.errors import InputError
from bitdistiller.reporting.collect import collect
from bitdistiller.reporting.published import Published
from bitdistiller.stages.digest import hash_file

LLAMA = {"teacher": {"demo": {}, "title": "LLaMA-2-7B"}}


def row(frame: pd.DataFrame, run: str, evaluation: str) -> pd.Series:
    """The main metric of a cell."""
    (found,) = frame[frame["main"] & (frame["run"] == run) & (frame["evaluation"] == evaluation)].to_dict("records")
    return found


def test_values_are_those_of_the_files(experiment, results):
    frame = collect(experiment, results).frame
    assert len(frame) == 18
    assert not frame.duplicated(["model", "run", "evaluation", "metric"]).any()
    found = row(frame, "int2", "arithmetic")
    assert (found["value"], found["n"], found["unit"]) == (0.71, 500, "questions")
    assert found["standard_error"] == pytest.approx((0.71 * 0.29 / 500) ** 0.5)
    assert (found["bits"], found["bits_per_weight"], found["group_size"]) == (2, 2.140625, 128)
    assert row(frame, "fp16", "text")["bits_per_weight"] == 16


def test_everything_finished(experiment, results):
    coverage = collect(experiment, results).coverage
    assert coverage.line == "6 of 6 runs finished."
    assert coverage.as_json()["missing"] == {}


def test_missing_results_count_as_not_finished(experiment, tmp_path):
    for run in list(RUNS)[:4]:
        write_run(tmp_path, run)
    (tmp_path / "teacher/nf3/evaluation/code/metrics.json").unlink()
    coverage = collect(experiment, tmp_path).coverage
    assert coverage.line == "3 of 6 runs finished; missing: nf3, clip-int2, int2."
    assert coverage.missing["nf3"] == ("code",)
    assert coverage.missing["int2"] == ("text", "arithmetic", "code")


def test_no_results_at_all(experiment, tmp_path):
    collected = collect(experiment, tmp_path / "none")
    assert collected.frame.empty
    assert collected.history.empty
    assert collected.used == {}
    assert collected.coverage.line.startswith("0 of 6 runs finished; missing: fp16, ")


@pytest.mark.parametrize(
    "content",
    [
        b'{"kind": "perplexity", "metr',
        b"",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"null",
        b'{"kind": "perplexity", "metrics": {}}',
        b'{"kind": "perplexity", "metrics": {"perplexity": {"value": "high"}}}',
        b'{"kind": "math", "metrics": {"exact_match": {"value": 0.5}}}',
    ],
)
def test_damaged_metrics_are_a_warning(experiment, results, caplog, content):
    path = results / "teacher/int2/evaluation/text/metrics.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        collected = collect(experiment, results)
    assert collected.coverage.missing == {"int2": ("text",)}
    assert str(path) in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "digest", ['{"files": {"metrics.json": {"sha256": "0"}}}', '{"files": {}}', "{", "[]", '{"files": 3}']
)
def test_metrics_that_differ_from_their_digest_are_damaged(experiment, results, caplog, digest):
    (results / "teacher/int2/evaluation/text/digest.json").write_text(digest)
    collected = collect(experiment, results)
    assert collected.coverage.missing == {"int2": ("text",)}
    assert "teacher/int2/evaluation/text/metrics.json" not in collected.used
    assert caplog.records


def test_metrics_that_equal_their_digest_are_read(experiment, results):
    path = results / "teacher/int2/evaluation/text/metrics.json"
    digest = {"files": {"metrics.json": {"sha256": hash_file(path)}}}
    (path.parent / "digest.json").write_text(json.dumps(digest))
    assert not collect(experiment, results).coverage.missing


def test_damaged_export_leaves_bits_per_weight_open(experiment, results):
    (results / "teacher/int2/export/export.json").write_text('{"bits_per_weight": "two"}')
    collected = collect(experiment, results)
    assert pd.isna(row(collected.frame, "int2", "text")["bits_per_weight"])
    assert not collected.coverage.missing


def test_a_run_without_evaluations_is_finished_when_exported(results):
    experiment = make_experiment(evaluations={})
    (results / "teacher/int2/export/export.json").unlink()
    coverage = collect(experiment, results).coverage
    assert coverage.missing == {"int2": ("checkpoint",)}


def test_published_numbers_are_joined_in_our_unit(results):
    frame = collect(make_experiment(models=LLAMA, paper="bitdistiller"), results).frame
    assert row(frame, "fp16", "text")["published"] == 5.47
    assert row(frame, "nf3", "text")["published"] == 5.97
    assert row(frame, "rtn-int2", "text")["published_as_printed"] == "3453"
    assert row(frame, "int2", "text")["published"] == 8.08
    assert "2402.10631" in row(frame, "int2", "text")["source"]
    assert pd.isna(row(frame, "int3", "text")["published"]), "the paper's 3-bit BitDistiller is NF3"
    assert pd.isna(row(frame, "clip-int2", "text")["published"])


def test_published_accuracies_become_fractions(results):
    experiment = make_experiment(models={"teacher": {"demo": {}, "title": "MetaMath-7B"}}, paper="bitdistiller")
    found = row(collect(experiment, results).frame, "int2", "arithmetic")
    assert (found["published"], found["published_as_printed"]) == (0.5102, "51.02")


@pytest.mark.parametrize("change", [{"paper": None}, {"models": {"teacher": {"demo": {}, "title": "LLaMA-2-7B chat"}}}])
def test_nothing_is_published_for_other_models(results, change):
    experiment = make_experiment(**{"models": LLAMA, "paper": "bitdistiller"} | change)
    assert collect(experiment, results).frame["published"].isna().all()


def test_another_group_size_has_no_published_number():
    place = {"model": "LLaMA-2-7B", "metric": "ppl", "method": "BitDistiller", "bits": 2, "number_format": "int2"}
    published = Published("bitdistiller")
    assert published.find(**place, group_size=128).text == "8.08"
    assert published.find(**place, group_size=64) is None


def test_unstated_formats_match_any():
    place = {"model": "LLaMA-2-7B", "metric": "ppl", "method": "LLM-QAT", "bits": 3, "group_size": 128}
    assert Published("bitdistiller").find(**place, number_format="int3").text == "6.02"


def test_unknown_paper_is_an_input_error(results):
    with pytest.raises(InputError, match="accepted: bitdistiller"):
        collect(make_experiment(paper="nonesuch"), results)


def test_every_published_row_has_a_source():
    numbers = Published("bitdistiller")._numbers
    assert len(numbers) == 273
    assert all(number.source.startswith("arXiv 2402.10631 (ACL 2024), Table ") for number in numbers.values())


def test_secondary_metrics_are_in_the_frame_but_not_main(results):
    evaluations = {"arc": {"kind": "multiple_choice", "task": "arc_easy", "metric": "acc_norm"}}
    path = write_metrics(results, "int2", "arithmetic", 0.25).parent.with_name("arc") / "metrics.json"
    path.parent.mkdir()
    entry = {"value": 0.25, "standard_error": 0.03, "n": 200, "unit": "items"}
    metrics = {"acc": entry, "acc_norm": entry | {"value": 0.3}}
    path.write_text(json.dumps({"kind": "multiple_choice", "metrics": metrics}))
    frame = collect(make_experiment(evaluations=evaluations), results).frame
    assert dict(zip(frame["metric"], frame["main"], strict=True)) == {"acc": False, "acc_norm": True}
    assert frame["higher_is_better"].all()


def test_history_takes_the_last_of_repeated_steps_and_skips_torn_lines(experiment, results, caplog):
    path = results / "teacher/int2/train/history.jsonl"
    lines = ['{"step": 2, "loss": 3.0, "tokens": 10}', '{"step": 1, "loss": 5.0, "tokens": 7}']
    lines += ['{"step": 2, "loss": 2.0, "tokens": 10}']
    path.write_text(
        "\n".join([*lines, '{"step": 2, "evaluation_loss": 1.5}', '{"step": 3, "loss": NaN}', '{"step": 4, "lo'])
    )
    collected = collect(experiment, results)
    frame = collected.frame[collected.frame["run"] == "int2"]
    assert set(frame["training_tokens"]) == {17}
    history = collected.history
    history = history[history["run"] == "int2"]
    assert history["loss"].dropna().tolist() == [5.0, 2.0]
    assert history["evaluation_loss"].dropna().tolist() == [1.5]
    assert set(history["gamma"]) == {0.71}
    assert "1 damaged lines" in caplog.text
