"""Post-processing of generated code, and the code track from file to metrics."""

import re

import pytest

from bitdistiller.evaluation import code
from bitdistiller.evaluation.code import DATASETS, block_of_code, indented_lines, instruction
from bitdistiller.evaluation.datasets import rows
from bitdistiller.evaluation.sandbox import Sandbox, Unavailable


@pytest.fixture(scope="module")
def sandbox():
    found = Sandbox.probe()
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)
    return found


def test_the_prompt_has_tabs():
    prompt = instruction('def f(x):\n    """Double."""\n')
    assert prompt == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nCreate a Python script for this problem:\n"
        'def f(x):\n\t"""Double."""\n\n\n### Response:'
    )


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("Here:\n```python\ndef f(x):\n\treturn 2 * x\n```\nIt doubles.", "def f(x):\n    return 2 * x\n"),
        ("```python\ndef f(): pass\n```\n```python\nf()\n```", "def f(): pass\n"),
        ("```python\ndef f(): pass\n", "def f(): pass\n"),
        ("def f(): pass", "def f(): pass\n"),
        ('def f(): pass\n\nif __name__ == "__main__":\n    f()', "def f(): pass\n"),
        ("def f(): pass\n\n# Example usage:\nf()", "def f(): pass\n"),
        ("    return 2 * x\n", "    return 2 * x\n"),
        ("", "\n"),
    ],
)
def test_the_block_of_code(completion, program):
    assert block_of_code(completion) == program


@pytest.mark.parametrize(
    ("completion", "body"),
    [
        ("    return x\n", "    return x\n"),
        ("    y = x\n\n    return y\ndef g():\n    pass\n", "    y = x\n\n    return y\n"),
        ("    return x\n\n\nprint(1)", "    return x\n"),
        ("return x", "\n"),
        ("", "\n"),
    ],
)
def test_a_body_ends_at_the_first_line_that_is_not_indented(completion, body):
    assert indented_lines(completion) == body


def opening(row):
    """The prompt of a row up to the docstring of the function to complete."""
    name = f"def {row['entry_point']}("
    before, _, after = row["prompt"].partition(name)
    return before + name + re.split(r"\"\"\"|'''", after)[0].rstrip(" ")


# MbppEval/56 asks for a function called check, which its own test then redefines: no program can pass.
@pytest.mark.parametrize(
    ("dataset", "path", "count", "impossible"),
    [
        ("humaneval", "humaneval/HumanEval.jsonl.gz", 164, []),
        ("mbpp", "mbpp/mbpp_sanitized_codet.jsonl.gz", 60, ["MbppEval/56"]),
    ],
)
def test_canonical_solutions_pass(test_data, sandbox, answering, evaluation_of, dataset, path, count, impossible):
    path = test_data / "datasets" / path
    solutions = {
        instruction(row["prompt"]): f"```python\n{opening(row)}{row['canonical_solution']}```"
        for row in rows(dataset, path, count)
    }
    subject = answering(solutions, context=4096)
    metrics, predictions, _ = evaluation_of(
        subject, kind="code", dataset=dataset, path=path, max_items=count, batch_size=100
    )
    assert [line["id"] for line in predictions if not line["passed"]] == impossible
    assert metrics["metrics"]["pass@1"]["value"] == pytest.approx(1 - len(impossible) / count)
    assert metrics["metrics"]["pass@1"]["n"] == count


def test_solutions_of_the_authors_mbpp_file_pass(test_data, sandbox, answering, evaluation_of):
    """Its rows have a text and a list of tests; the tests of some need what their own solution imports."""
    path, count = test_data / "datasets" / "mbpp" / "mbpp_test.jsonl.gz", 40
    solutions = {row["text"]: f"```python\n{row['code']}\n```" for row in rows("mbpp", path, count)}
    subject = answering(solutions, context=4096)
    metrics, predictions, _ = evaluation_of(subject, kind="code", dataset="mbpp", path=path, max_items=count)
    assert [line["id"] for line in predictions if not line["passed"]] == []
    assert (metrics["metrics"]["pass@1"]["n"], metrics["metrics"]["pass@1"]["total"]) == (count, 500)
    first = predictions[0]["program"]
    assert first.startswith('"""\nWrite a python function to remove first and last occurrence')
    assert 'assert remove_Occ("hello","l") == "heo"\n"""\ndef remove_Occ(s,ch):' in first


def test_one_failed_test_of_a_list_is_a_failure(sandbox, answering, evaluation_of, write_lines):
    row = {"task_id": 1, "text": "Double x.", "test_list": ["assert f(1) == 2", "assert f(2) == 4"]}
    subject = answering({"Double": "```python\ndef f(x):\n    return 2\n```"}, context=4096)
    _, (line,), _ = evaluation_of(subject, kind="code", dataset="mbpp", path=write_lines([row]))
    assert line["passed"] is False


def demo_rows():
    test = "def check(candidate):\n    assert candidate(2) == 4\n"
    names = ("right", "wrong", "exit", "loop", "syntax", "empty")
    start = 'def {}(x):\n    """Double."""\n'
    return [{"id": n, "prompt": start.format(n), "test": test, "entry_point": n} for n in names]


DEMO_ANSWERS = {
    "right": "    return x + x\nprint(",
    "wrong": "    return x\n",
    "exit": "    raise SystemExit(0)\n",
    "loop": "    while True: pass\n",
    "syntax": "    return (\n",
}


def test_the_demo_track(sandbox, answering, evaluation_of, write_lines):
    path = write_lines(demo_rows())
    options = {"kind": "code", "dataset": "demo-code", "path": path, "timeout": 1.0}
    metrics, predictions, folder = evaluation_of(answering(DEMO_ANSWERS), "a", **options)
    assert [line["status"] for line in predictions] == ["passed", "failed", "exited", "timeout", "failed", "failed"]
    assert metrics["metrics"]["pass@1"] | {"standard_error": 0} == {
        "value": 1 / 6,
        "standard_error": 0,
        "n": 6,
        "unit": "problems",
        "higher_is_better": True,
    }
    assert metrics["protocol"]["timeout"] == 1.0
    _, _, again = evaluation_of(answering(DEMO_ANSWERS), "b", **options)
    for name in ("predictions.jsonl", "metrics.json"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()


def test_without_isolation_nothing_is_run(answering, evaluation_of, write_lines, monkeypatch):
    monkeypatch.setattr(code.Sandbox, "probe", classmethod(lambda cls: Unavailable("no isolation works here")))
    monkeypatch.setattr(code.Sandbox, "run", lambda *_: pytest.fail("a program was run"))
    path = write_lines(demo_rows())
    metrics, predictions, _ = evaluation_of(answering(DEMO_ANSWERS), kind="code", dataset="demo-code", path=path)
    metric = metrics["metrics"]["pass@1"]
    assert metric["value"] is None
    assert metric["reason"] == "not run: no isolation works here"
    assert metric["n"] == 6
    assert {line["passed"] for line in predictions} == {None}
    assert predictions[0]["completion"]


def test_a_sandbox_that_breaks_is_no_wrong_answer(sandbox, answering, evaluation_of, write_lines, monkeypatch):
    broken = Sandbox("landlock", filter_calls=False)
    monkeypatch.setattr(code.Sandbox, "probe", classmethod(lambda cls: broken))
    path = write_lines(demo_rows())
    with pytest.raises(RuntimeError, match="the system call filter"):
        evaluation_of(answering(DEMO_ANSWERS), kind="code", dataset="demo-code", path=path)


def test_every_code_dataset_of_the_config_is_known():
    from typing import get_args

    from bitdistiller.config import CodeDataset, MathDataset
    from bitdistiller.evaluation.gsm8k import DATASETS as MATH

    assert set(get_args(CodeDataset)) == set(DATASETS)
    assert set(get_args(MathDataset)) == set(MATH)
