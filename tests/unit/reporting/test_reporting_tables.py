"""Tables: what is bold, what is footnoted, how numbers look, and each format's own traps."""

import io
import json
import math
import re

import pandas as pd
import pytest
from result_trees import EVALUATIONS, RUNS, make_experiment, write_metrics, write_run
from rich.console import Console

from bitdistiller.reporting import latex, markdown, page, quantities, terminal
from bitdistiller.reporting.build import build_table
from bitdistiller.reporting.collect import collect
from bitdistiller.reporting.differences import difference
from bitdistiller.reporting.published import PublishedNumber
from bitdistiller.reporting.tables import Cell, Table

LLAMA = {"models": {"teacher": {"demo": {}, "title": "LLaMA-2-7B"}}, "paper": "bitdistiller"}


def cells(table: Table) -> dict[str, tuple[Cell, ...]]:
    """The cells of every run."""
    rows = (row for section in table.sections for _, rows in section.bit_widths for row in rows)
    return {row.identity.run: row.cells for row in rows if row.identity.run}


def table_of(experiment, results) -> Table:
    return build_table(experiment, collect(experiment, results))


def markdown_rows(text: str) -> list[list[str]]:
    """The fields of every row below the rule."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[field.strip() for field in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5.1, "5.10"),
        (845.333, "845.33"),
        (999.99, "999.99"),
        (4000.4, "4000"),
        (99999.4, "99999"),
        (218_700.0, "2.187e5"),
    ],
)
def test_perplexity_keeps_at_least_four_digits(value, expected):
    assert quantities.perplexity(value).plain == expected


def test_infinite_and_undefined_perplexity():
    assert quantities.perplexity(float("inf")).latex == r"$\infty$"
    assert quantities.perplexity(float("nan")).plain == "NaN"


def test_standard_errors_have_the_decimals_of_their_value():
    assert quantities.standard_error(0.0143, 0.71, "fraction").plain == "1.43"
    assert quantities.standard_error(48.3, 4000.0, "perplexity").plain == "48"
    assert quantities.standard_error(0.003, 5.1, "perplexity").plain == "<0.01"
    assert quantities.standard_error(0.0, 0.0, "fraction").plain == "0.00"
    assert quantities.standard_error(2624.4, 218_700.0, "perplexity").pretty == "2.6×10³"


def test_a_part_of_the_items_is_said(experiment, results):
    """For all of a column in its n; for one run in a footnote."""
    for run in RUNS:
        write_metrics(results, run, "arithmetic", 0.5, total=1319)
    write_metrics(results, "int2", "code", 0.5, n=20, total=300)
    text = markdown.render(table_of(experiment, results))
    assert "Arithmetic 500 of 1319 questions" in text
    assert "n = 20 of 300 problems" in text


def test_divergences_are_printed_in_nats(results):
    evaluations = EVALUATIONS | {"kl": {"kind": "agreement", "dataset": "demo-text", "label": "KL"}}
    experiment = make_experiment(evaluations=evaluations)
    assert cells(table_of(experiment, results))["int2"][-1].status == "pending"
    metrics = {
        "kl": {"value": 0.04567, "standard_error": 0.00213, "n": 9, "unit": "chunks", "quantity": "nats"},
        "top1": {"value": 0.9, "standard_error": 0.01, "n": 9, "unit": "chunks", "quantity": "fraction"},
    }
    path = results / "teacher" / "int2" / "evaluation" / "kl" / "metrics.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"evaluation": "kl", "kind": "agreement", "metrics": metrics}))
    table = table_of(experiment, results)
    found = cells(table)
    assert found["int2"][-1].value.plain == "0.046"
    assert found["int2"][-1].error.plain == "0.002"
    assert not table.columns[-1].higher_is_better
    assert found["fp16"][-1].status == "absent"


def test_rows_follow_the_paper(experiment, results):
    rows = markdown_rows(markdown.render(table_of(experiment, results)))
    assert [row[:4] for row in rows] == [
        ["16", "16-bit", "BF16", "16.00"],
        ["3", "BitDistiller", "INT3", "3.15"],
        ["", "BitDistiller", "NF3", "3.25"],
        ["2", "RTN", "INT2", "2.14"],
        ["", "Clipped RTN", "INT2", "2.14"],
        ["", "BitDistiller", "INT2", "2.14"],
    ]
    assert rows[5][4:] == ["**6.40** ± 0.08", "**71.00** ± 2.03", "**69.00** ± 2.67", "410 k"]
    assert rows[3][4] == "4000 ± 48"


def test_training_tokens_and_time_stand_at_the_end(experiment, results):
    """Tokens in every table; time, which no two trainings share, only where it is given."""
    table = table_of(experiment, results)
    assert table.training == ("Train tokens",)
    timed = build_table(experiment, collect(experiment, results), {"int2": 1.2525, "int3": 0.01})
    assert timed.training == ("Train tokens", "Train time")
    rows = {row.identity.run: row.training for _, group in timed.sections[0].bit_widths for row in group}
    assert rows["int2"] == ("410 k", "1:15:09")
    assert rows["int3"] == ("410 k", "0:00:36")
    assert rows["nf3"] == ("410 k", "")
    assert rows["rtn-int2"] == rows["fp16"] == ("", "")
    texts = markdown.render(timed), page.render(timed, []), latex.render(timed)
    assert all("1:15:09" in text and "Train time" in text and "h:mm:ss" in text for text in texts)
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal.render(timed))
    assert re.search(r"BitDistiller +INT2 .* 410 k +1:15:09", console.file.getvalue())


def test_no_training_no_columns(experiment, tmp_path):
    table = table_of(experiment, tmp_path)
    assert table.training == ()
    assert "Train" not in markdown.render(table)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (812, "812"),
        (1000, "1.00 k"),
        (65_536, "65.5 k"),
        (720_300, "720 k"),
        (999_999, "1.00 M"),
        (1_443_000, "1.44 M"),
        (2**31, "2.15 G"),
    ],
)
def test_counts_keep_three_digits(number, text):
    assert quantities.count(number) == text


def test_best_of_each_bit_width_is_bold(experiment, results):
    best = {run: [cell.best for cell in row] for run, row in cells(table_of(experiment, results)).items()}
    assert [run for run, flags in best.items() if all(flags)] == ["nf3", "int2"]
    assert not any(flag for run, flags in best.items() if run not in ("nf3", "int2") for flag in flags)


def test_numbers_that_print_alike_share_the_bold(experiment, results):
    write_metrics(results, "clip-int2", "text", 6.4001)
    write_metrics(results, "int2", "text", 6.3999)
    found = cells(table_of(experiment, results))
    assert [found[run][0].best for run in ("rtn-int2", "clip-int2", "int2")] == [False, True, True]


def test_nothing_is_bold_where_all_are_equal(experiment, results):
    for run in ("rtn-int2", "clip-int2", "int2"):
        write_metrics(results, run, "code", 0.0)
    assert not any(cells(table_of(experiment, results))[run][2].best for run in ("rtn-int2", "clip-int2", "int2"))


def test_undefined_values_are_never_best(experiment, results):
    write_metrics(results, "int2", "text", float("nan"))
    found = cells(table_of(experiment, results))
    assert found["int2"][0].value.plain == "NaN"
    assert found["clip-int2"][0].best


PAPER_COLUMN = [
    *("5.47", ""),
    *("5.97", "6.65", "6.38", "6.71", "6.10", "6.02"),
    *("3453", "", "8.08", "NaN", "2.2e5", "12.84", "9.30"),
]
"""Of each bit width: the numbers beside our runs, then the rows that only the paper has."""


def test_rows_that_only_the_paper_has_follow_ours(results):
    table = table_of(make_experiment(**LLAMA), results)
    rows = {
        (bits, row.method): row
        for _, widths in ((s, s.bit_widths) for s in table.sections)
        for bits, r in widths
        for row in r
    }
    theirs = rows[2, "OmniQuant"]
    assert (theirs.format, theirs.bits_per_weight, theirs.identity.run) == ("INT2", "—", "")
    assert theirs.cells[0].status == "absent"
    assert theirs.cells[0].published.text == "12.84"
    assert rows[3, "LLM-QAT"].format == "—"
    assert any(note.startswith("Rows without a number of ours are the paper's") for note in table.notes)
    assert not any(note.startswith("Rows without") for note in table_of(make_experiment(), results).notes)
    for text in (markdown.render(table), latex.render(table), page.render(table, [])):
        assert "OmniQuant" in text


def test_published_numbers_have_a_column_only_where_there_are_some(results):
    table = table_of(make_experiment(**LLAMA), results)
    assert [column.has_published for column in table.columns] == [True, False, False]
    rows = markdown_rows(markdown.render(table))
    assert [row[5] for row in rows] == PAPER_COLUMN
    assert any("arXiv 2402.10631 (ACL 2024), Table 1" in note for note in table.notes)


def test_protocols_that_differ_are_footnoted(results):
    metamath = {"models": {"teacher": {"demo": {}, "title": "MetaMath-7B"}}, "paper": "bitdistiller"}
    for run in RUNS:
        write_metrics(results, run, "arithmetic", 0.5, n=1319)
    table = table_of(make_experiment(**metamath), results)
    assert table.footnotes == (
        (
            "a",
            "Arithmetic: ours greedy, 1319 questions; the paper's sampled at temperature 0.2, "
            "1280 of the 1319 questions (the last partial batch is dropped)",
        ),
    )
    assert table.columns[1].mark == "a"


def test_equal_protocols_have_no_footnote(results):
    for run in RUNS:
        write_metrics(results, run, "text", 5.0, protocol={"chunk_length": 2048})
    assert table_of(make_experiment(**LLAMA), results).footnotes == ()


def test_reasons_pending_and_other_n_are_footnoted(tmp_path):
    for run in list(RUNS)[:4]:
        write_run(tmp_path, run)
    write_metrics(tmp_path, "nf3", "code", None, reason="no sandbox on this machine.")
    write_metrics(tmp_path, "int3", "arithmetic", 0.5, n=100)
    experiment = make_experiment()
    table = table_of(experiment, tmp_path)
    assert table.footnotes == (("a", "n = 100 questions"), ("b", "Not measured: no sandbox on this machine"))
    text = markdown.render(table)
    assert "| n/a<sup>b</sup> |" in text
    assert "— *pending*" in text
    assert "4 of 6 runs finished; missing: clip-int2, int2." in text
    assert "--- & " in latex.render(table)


def test_a_measured_cell_without_reason_counts_as_finished(results):
    write_metrics(results, "int2", "code", None, reason="no sandbox")
    assert not collect(make_experiment(), results).coverage.missing


def test_cells_that_were_not_asked_for_are_blank(results):
    experiment = make_experiment()
    runs = {name: run.model_dump(exclude_defaults=True) for name, run in experiment.runs.items()}
    runs["rtn-int2"]["evaluations"] = ["text"]
    table = table_of(make_experiment(runs=runs), results)
    assert [cell.status for cell in cells(table)["rtn-int2"]] == ["measured", "absent", "absent"]
    assert "Blank: not part of that run." in table.notes


def test_runs_that_differ_in_training_alone_are_told_apart(results):
    runs = {name: run.model_dump(exclude_defaults=True) for name, run in make_experiment().runs.items()}
    runs["int2-jsd"] = runs["int2"]
    runs["int2-g64"] = runs["int2"] | {"group_size": 64}
    table = table_of(make_experiment(runs=runs), results)
    names = [(row.method, row.format) for _, rows in table.sections[0].bit_widths for row in rows]
    assert names[-3:] == [
        ("BitDistiller (int2)", "INT2 g128"),
        ("BitDistiller (int2-jsd)", "INT2 g128"),
        ("BitDistiller", "INT2 g64"),
    ]


def test_several_models_have_sections(results):
    models = {"teacher": {"demo": {}}, "other": {"demo": {}, "title": "Other"}}
    runs = {name: run.model_dump(exclude_defaults=True) for name, run in make_experiment().runs.items()}
    runs["other-fp"] = {"model": "other", "method": "16-bit"}
    table = table_of(make_experiment(models=models, runs=runs), results)
    assert [section.title for section in table.sections] == ["teacher", "Other"]
    assert markdown.render(table).splitlines()[4].startswith("| Model ")
    assert "Other" in latex.render(table)
    assert "Other" in page.render(table, [])


def test_latex_escapes_what_people_write(results):
    evaluations = EVALUATIONS | {"text": EVALUATIONS["text"] | {"label": "50% of {A}_B & ~C^2 #1 $x \\ <y>"}}
    text = latex.render(table_of(make_experiment(evaluations=evaluations, title="a_b & c"), results))
    assert (
        r"50\% of \{A\}\_B \& \textasciitilde{}C\textasciicircum{}2 \#1 \$x \textbackslash{} \textless{}y\textgreater{}"
        in text
    )
    assert r"\caption{a\_b \& c. 6 of 6 runs finished.}" in text


def test_differences_from_the_paper_have_standard_errors(results):
    """Perplexity: our error alone. Accuracies: the paper's 1280 questions add theirs."""
    experiment = make_experiment(**LLAMA)
    frame = collect(experiment, results).frame
    row = frame[(frame["run"] == "int2") & (frame["evaluation"] == "text")].iloc[0]
    assert row["difference"] == pytest.approx(6.4 - 8.08)
    assert row["difference_standard_error"] == row["standard_error"]
    cell = cells(table_of(experiment, results))["int2"][0]
    assert (cell.difference.plain, cell.difference_error.plain) == ("-1.68", "0.08")
    text = markdown.render(table_of(experiment, results))
    assert re.search(r"\| +8\.08 \| +-1\.68 ± 0\.08 \|", text)
    assert "Δ: ours less the paper's" in text
    assert r"$-$1.68 {\scriptsize$\pm$\,0.08}" in latex.render(table_of(experiment, results))
    metamath = {"models": {"teacher": {"demo": {}, "title": "MetaMath-7B"}}, "paper": "bitdistiller"}
    frame = collect(make_experiment(**metamath), results).frame
    row = frame[(frame["run"] == "int2") & (frame["evaluation"] == "arithmetic")].iloc[0]
    published = 0.5102
    assert row["difference"] == pytest.approx(0.71 - published)
    expected = math.hypot(row["standard_error"], math.sqrt(published * (1 - published) / 1280))
    assert row["difference_standard_error"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "error", "text", "n", "quantity", "expected"),
    [
        (5.0, 0.1, "5.5", None, "perplexity", (-0.5, 0.1)),
        (5.0, None, "5.5", None, "perplexity", (-0.5, None)),
        (0.5, 0.0, "50", 100, "fraction", (0.0, 0.05)),
        (0.5, 0.03, "50", None, "fraction", (0.0, 0.03)),
        (None, None, "50", 100, "fraction", (None, None)),
        (5.0, 0.1, "nan", None, "perplexity", (None, None)),
    ],
)
def test_differences(value, error, text, n, quantity, expected):
    found = difference(value, error, PublishedNumber(text, "somewhere"), n, quantity)
    assert found == pytest.approx(expected)


def test_averages_are_recomputed_and_compared(results):
    averages = {"avg": {"of": ["arithmetic", "code"], "label": "Avg", "published": "avg"}}
    experiment = make_experiment(**LLAMA, averages=averages)
    frame = collect(experiment, results).frame
    row = frame[(frame["run"] == "int2") & (frame["evaluation"] == "avg")].iloc[0]
    parts = frame[(frame["run"] == "int2") & frame["evaluation"].isin(["arithmetic", "code"])]
    assert row["value"] == pytest.approx((0.71 + 0.69) / 2)
    assert row["standard_error"] == pytest.approx(math.hypot(*parts["standard_error"]) / 2)
    assert row["difference"] == pytest.approx(0.70 - 0.4918)
    table = table_of(experiment, results)
    assert table.columns[-1].label == "Avg"
    assert cells(table)["int2"][-1].value.plain == "70.00"
    (results / "teacher" / "int2" / "evaluation" / "code" / "metrics.json").unlink()
    assert cells(table_of(experiment, results))["int2"][-1].status == "pending"


def test_latex_rows_have_as_many_fields_as_columns(results):
    text = latex.render(table_of(make_experiment(**LLAMA), results))
    (columns,) = re.findall(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}", text)
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(line.split(" & ")) for line in rows} == {len(columns)} == {10}
    assert r"\textbf{6.40} {\scriptsize$\pm$\,0.08}" in text


def test_markdown_escapes_what_people_write(results):
    evaluations = EVALUATIONS | {"text": EVALUATIONS["text"] | {"label": "a|b_c*"}}
    text = markdown.render(table_of(make_experiment(evaluations=evaluations), results))
    assert r"a\|b\_c\* ↓" in text


def test_html_stands_alone_and_escapes(results):
    evaluations = EVALUATIONS | {"text": EVALUATIONS["text"] | {"label": "<script>alert(1)</script>"}}
    text = page.render(table_of(make_experiment(evaluations=evaluations, **LLAMA), results), [])
    assert "<script" not in text
    assert not re.search(r"https?:|//[a-z]|@import|src=", text)
    assert '<b class="best">6.40</b>' in text


def test_html_shows_the_numbers_of_the_table(results):
    text = page.render(table_of(make_experiment(**LLAMA), results), [])
    shown = [
        re.sub(r"<[^>]+>", "", cell).split() for cell in re.findall(r'<td class="number lead">(.*?)</td>', text, re.S)
    ]
    found = cells(table_of(make_experiment(**LLAMA), results))
    expected = [
        [cell.value.pretty, *(["±", cell.error.pretty] if cell.error else [])] for row in found.values() for cell in row
    ]
    assert [texts for texts in shown if texts] == expected
    assert pd.Series(re.findall(r'<td class="number paper">(.*?)</td>', text)).tolist() == PAPER_COLUMN


def test_terminal_shows_table_and_files(experiment, results):
    output = io.StringIO()
    (results / "tables/demo").mkdir(parents=True)
    (results / "tables/demo/main.html").touch()
    terminal.show_results(experiment, results, Console(file=output, width=120))
    text = output.getvalue()
    assert "6 of 6 runs finished." in text
    assert "6.40 ± 0.08" in text
    assert "tables/demo/main.html" in text.replace("\n", "")
    assert "training_curves.svg" not in text
