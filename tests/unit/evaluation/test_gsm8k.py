"""Reading answers, and the arithmetic track from file to metrics."""

import math
from fractions import Fraction

import pytest

from bitdistiller.errors import InputError
from bitdistiller.evaluation.gsm8k import DATASETS, parse_answer, parse_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("18.", 18),
        ("18.0", 18),
        ("$18", 18),
        ("$1,234.50.", Fraction("1234.5")),
        ("-7", -7),
        ("-$7", -7),
        ("$-7", -7),
        ("−7", -7),
        (".5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("6 / 8", Fraction(3, 4)),
        ("12,345,678 dollars", 12345678),
        ("3, 4", 3),
        ("1,23", 1),
        ("**42**", 42),
        ("$\\boxed{42}$", 42),
        ("50%", 50),
        ("x = 5", 5),
        ("5/0", 5),
        ("007", 7),
        ("none", None),
        ("", None),
    ],
)
def test_numbers(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("completion", "number"),
    [
        ("2 + 2 = 4. The answer is: 4", 4),
        ("The answer is: 4\n\nNext question. The answer is: 9", 4),
        ("The answer is:4", 4),
        ("The answer is: \n4", None),
        ("It is 4.", None),
        ("The answer is 4", None),
        ("", None),
    ],
)
def test_answers(completion, number):
    assert parse_answer(completion) == number


def test_the_prompt_is_the_template_of_the_spec():
    prompt_of, gold_of = DATASETS["gsm8k"]
    row = {"question": "How many?", "answer": "Count.\n#### 1,200"}
    assert prompt_of(row) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nHow many?\n\n### Response: Let's think step by step."
    )
    assert gold_of(row) == 1200


def test_every_gold_answer_of_gsm8k_can_be_read(test_data):
    from bitdistiller.evaluation.datasets import rows

    found = rows("gsm8k", test_data / "datasets" / "gsm8k" / "test.jsonl.gz")
    golds = [DATASETS["gsm8k"][1](row) for row in found]
    assert len(golds) == 1319
    assert golds[0] == 18
    texts = [row["answer"].rpartition("####")[2].strip().replace(",", "") for row in found]
    assert [float(gold) for gold in golds] == [float(text) for text in texts]


def test_all_items_count(answering, evaluation_of, write_lines):
    rows = [{"question": f"What is number {n}?", "answer": f"#### {n}"} for n in range(5)]
    path = write_lines(rows)
    table = {"number 0?": " The answer is: 0.", "number 1?": " The answer is: 7", "number 2?": " I do not know"}
    subject = answering(table | {"number 3?": " The answer is: $3"})
    options = {"kind": "math", "dataset": "gsm8k", "path": path, "batch_size": 1, "commit_every": 2}
    metrics, predictions, _ = evaluation_of(subject, **options)
    metric = metrics["metrics"]["exact_match"]
    assert (metric["value"], metric["n"], metric["unit"]) == (0.4, 5, "questions")
    assert metric["standard_error"] == pytest.approx(math.sqrt(0.4 * 0.6 / 4))
    assert [line["correct"] for line in predictions] == [True, False, False, True, False]
    assert [line["answer"] for line in predictions] == ["0", "7", None, "3", None]
    assert [line["id"] for line in predictions] == [0, 1, 2, 3, 4]
    assert all("### Instruction:\nWhat is number" in line["prompt"] for line in predictions)
    assert [len(prompts) for prompts, *_ in subject.engine.batches] == [2, 2, 1]


def test_demo_prompts_are_taken_as_they_are(answering, evaluation_of, write_lines):
    row = {"id": "demo-1", "prompt": "Tom has 2 nuts.\n", "completion": "", "answer": "4"}
    path = write_lines([row])
    subject = answering({"Tom": "2 + 2 = 4. The answer is: 4"})
    metrics, predictions, _ = evaluation_of(subject, kind="math", dataset="demo-math", path=path, max_new_tokens=20)
    assert metrics["metrics"]["exact_match"]["value"] == 1.0
    assert predictions[0]["id"] == "demo-1"
    prompts, _, sampling = subject.engine.batches[0]
    assert prompts == ["Tom has 2 nuts.\n"]
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (20, 0.0, 1.0)


def test_each_prompt_has_its_own_seed(answering, evaluation_of, write_lines):
    rows = [{"prompt": f"{name} nuts", "answer": "1"} for name in "abc"]
    path = write_lines(rows)
    seeds = {}
    for batch_size in (1, 3):
        subject = answering({})
        evaluation_of(
            subject,
            f"out-{batch_size}",
            kind="math",
            dataset="demo-math",
            path=path,
            temperature=0.2,
            seed=7,
            batch_size=batch_size,
            commit_every=1,
        )
        del subject.engine.table
        seeds[batch_size] = [seed for _, batch, _ in subject.engine.batches for seed in batch]
        del subject.engine
    assert len(set(seeds[1])) == 3
    assert seeds[1] == seeds[3]


def test_a_prompt_that_fills_the_context_counts_as_wrong(answering, evaluation_of, write_lines):
    rows = [{"prompt": "word " * 100, "answer": "1"}, {"prompt": "short", "answer": "1"}]
    path = write_lines(rows)
    subject = answering({"short": "The answer is: 1"})
    metrics, predictions, _ = evaluation_of(subject, kind="math", dataset="demo-math", path=path)
    assert metrics["metrics"]["exact_match"]["value"] == 0.5
    assert [line["finish_reason"] for line in predictions] == ["no room", "eos"]


def test_the_first_items_only(answering, evaluation_of, write_lines):
    path = write_lines([{"prompt": f"p{n}", "answer": "1"} for n in range(5)])
    metrics, _, _ = evaluation_of(answering({}), kind="math", dataset="demo-math", path=path, max_items=2)
    assert metrics["metrics"]["exact_match"]["n"] == 2


def test_bad_rows_are_refused(answering, evaluation_of, write_lines):
    path = write_lines([{"prompt": "p", "answer": "none"}])
    with pytest.raises(InputError, match="a number was expected"):
        evaluation_of(answering({}), kind="math", dataset="demo-math", path=path)
    path = write_lines([{"text": "p"}], "other.jsonl")
    with pytest.raises(InputError, match="lacks the column"):
        evaluation_of(answering({}), "other", kind="math", dataset="gsm8k", path=path)


def test_a_demo_dataset_needs_a_path(answering, evaluation_of):
    with pytest.raises(InputError, match="give its path"):
        evaluation_of(answering({}), kind="math", dataset="demo-math")


def test_the_real_engine_answers(subject, evaluation_of, write_lines):
    path = write_lines([{"prompt": f"the cat {word}", "answer": "1"} for word in ("sat", "ran")])
    options = {"kind": "math", "dataset": "demo-math", "path": path, "max_new_tokens": 4, "temperature": 0.7}
    _, predictions, _ = evaluation_of(subject, "a", **options)
    _, again, _ = evaluation_of(subject, "b", **options, batch_size=1)
    assert predictions == again
    assert all(line["completion_tokens"] <= 4 for line in predictions)
