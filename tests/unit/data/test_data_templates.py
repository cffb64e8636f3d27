"""Every dataset's exact prompt (docs/method.md 3)."""

import pytest

from bitdistiller.config import PromptSource
from bitdistiller.data import prompts, rows
from bitdistiller.data.templates import DATASETS, instruction_prompt, math_prompt
from bitdistiller.errors import InputError

NO_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nSay {hi}.\n\n### Response:"
)
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nSay {hi}.\n\n### Input:\nto Bob\n\n### Response:"
)
CASES = [
    ("alpaca", {"instruction": "Say {hi}.", "input": "to Bob"}, "Say {hi}.\nto Bob\n"),
    ("alpaca", {"instruction": "Say {hi}.", "input": ""}, "Say {hi}.\n"),
    ("alpaca", {"instruction": "Say {hi}."}, "Say {hi}.\n"),
    ("alpaca-solar", {"instruction": "A", "input": "B"}, "### User: \nA\nB\n\n### Assistant:\n"),
    ("alpaca-solar", {"instruction": "A", "input": ""}, "### User: \nA\n\n### Assistant:\n"),
    ("openorca-solar", {"system_prompt": "", "question": "Q"}, "### User: \nQ\n\n### Assistant:\n"),
    (
        "openorca-solar",
        {"system_prompt": "S", "question": "Q"},
        "### System:\nS\n\n### User: \nQ\n\n### Assistant:\n",
    ),
    ("openorca-solar", {"question": "q" * 1025}, None),
    ("openorca-solar", {"question": "q" * 1024}, "### User: \n" + "q" * 1024 + "\n\n### Assistant:\n"),
    ("ultra-solar", {"prompt": "P"}, "### User: \nP\n\n### Assistant:\n"),
    ("ultra-solar", {"prompt": "p" * 1024}, "### User: \n" + "p" * 1024 + "\n\n### Assistant:\n"),
    ("ultra-solar", {"prompt": "p" * 1025}, None),
    ("code", {"instruction": "Say {hi}.", "output": "x"}, NO_INPUT),
    ("code", {"instruction": "Say {hi}.", "input": "to Bob"}, WITH_INPUT),
    ("math", {"query": "Say {hi}.", "response": "x"}, NO_INPUT + " Let's think step by step."),
    ("math", {"question": "Say {hi}.", "answer": "x"}, NO_INPUT + " Let's think step by step."),
    ("prompts", {"prompt": "Anything {at} all"}, "Anything {at} all"),
    ("demo-math", {"prompt": "2 + 2?"}, "2 + 2?"),
    ("demo-code", {"prompt": "def f():"}, "def f():"),
]


@pytest.mark.parametrize(("dataset", "row", "prompt"), CASES)
def test_prompt(dataset, row, prompt):
    assert DATASETS[dataset].prompt(row) == prompt


def test_named_templates():
    assert instruction_prompt("Say {hi}.") == NO_INPUT
    assert instruction_prompt("Say {hi}.", "to Bob") == WITH_INPUT
    assert math_prompt("Say {hi}.").endswith("### Response: Let's think step by step.")


@pytest.mark.parametrize("dataset", [name for name, rule in DATASETS.items() if rule.prompt])
def test_a_row_without_the_column_is_one_line(dataset):
    with pytest.raises(InputError, match=r"a row lacks the column .*; it has other$"):
        DATASETS[dataset].prompt({"other": "x"})


@pytest.mark.parametrize("dataset", ["wikitext", "redpajama"])
def test_starts_of_texts_longer_than_512_characters(dataset, monkeypatch):
    texts = ["a" * 512, "b" * 513, "c" * 127 + "d" * 600]
    monkeypatch.setattr(rows, "hub_rows", lambda *_: [{"text": text} for text in texts])
    found = prompts.source_prompts(PromptSource(dataset=dataset, samples=1), 0, 42, None)
    assert {prompt.text for prompt in found} == {"b" * 128, "c" * 127 + "d"}


PLACES = {
    "wikitext": ("wikitext", "wikitext-2-raw-v1", "train"),
    "redpajama": ("togethercomputer/RedPajama-Data-1T-Sample", None, "train"),
    "alpaca": ("yahma/alpaca-cleaned", None, "train"),
    "alpaca-solar": ("yahma/alpaca-cleaned", None, "train"),
    "openorca-solar": ("Open-Orca/OpenOrca", None, "train"),
    "ultra-solar": ("allenai/ultrafeedback_binarized_cleaned", None, "train_sft"),
    "code": ("nickrosh/Evol-Instruct-Code-80k-v1", None, "train"),
    "math": ("meta-math/MetaMathQA-40K", None, "train"),
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_where_a_dataset_is(dataset):
    rule = DATASETS[dataset]
    assert (rule.hub, rule.name, rule.split) == PLACES.get(dataset, (None, None, "train"))


def test_openorca_takes_the_first_20000_rows(monkeypatch):
    questions = ({"question": f"q{n}"} for n in range(20005))
    monkeypatch.setattr(rows, "hub_rows", lambda *_: questions)
    source = PromptSource(dataset="openorca-solar", samples=1, prompts=20000)
    assert len(prompts.source_prompts(source, 0, 42, None)) == 20000
    assert next(questions) == {"question": "q20000"}
