"""lm-eval's own tasks on local files: their prompts from whatever columns, few-shot examples, scoring, bad files."""

import json

import pytest
import torch

from bitdistiller.config import OFFICIAL_TASKS
from bitdistiller.errors import InputError
from bitdistiller.evaluation import official
from bitdistiller.evaluation.harness import StagedModel

LETTERS = {"text": ["red", "blue"], "label": ["A", "B"]}
# task: a row with choices and gold, the same in the hub's columns, the context, the first choice as it is scored
ROWS = {
    "arc_easy": (
        {"question": "the cat ?", "choices": ["red", "blue"], "gold": 1},
        {"question": "the cat ?", "choices": LETTERS, "answerKey": "B"},
        "Question: the cat ?\nAnswer:",
        " red",
    ),
    "arc_challenge": (
        {"id": "x", "question": "the cat ?", "choices": ["red", "blue"], "gold": 1},
        {"id": "x", "question": "the cat ?", "choices": LETTERS, "answerKey": "B"},
        "Question: the cat ?\nAnswer:",
        " red",
    ),
    "openbookqa": (
        {"question": "the cat was", "choices": ["red", "blue"], "gold": 1},
        {"question_stem": "the cat was", "choices": LETTERS, "answerKey": "B"},
        "the cat was",
        " red",
    ),
    "piqa": (
        {"goal": "sat", "choices": ["red", "blue"], "gold": 1},
        {"goal": "sat", "sol1": "red", "sol2": "blue", "label": 1},
        "Question: sat\nAnswer:",
        " red",
    ),
    "hellaswag": (
        {"query": "Cat: it sat on", "choices": ["a mat", "a rug", "a dog", "it"], "gold": 1},
        {
            "activity_label": "Cat",
            "ctx_a": "it sat [title] on",
            "ctx_b": "",
            "endings": ["a mat", "a rug", "a dog", "it"],
            "label": "1",
        },
        None,
        " a mat",
    ),
    "winogrande": (
        {"sentence": "the dog ran as _ was big .", "choices": ["a cat", "it"], "gold": 1},
        {"sentence": "the dog ran as _ was big .", "option1": "a cat", "option2": "it", "answer": "2"},
        "the dog ran as a cat",
        " was big .",
    ),
    "boolq": (
        {"passage": "the cat sat .", "question": "was it red", "gold": 1},
        {"passage": "the cat sat .", "question": "was it red", "label": 1},
        "the cat sat .\nQuestion: was it red?\nAnswer:",
        " no",
    ),
    "social_iqa": (
        {"question": "the cat sat . was it red ?", "choices": ["a", "the", "it"], "gold": 1},
        {
            "context": "the cat sat .",
            "question": "was it red ?",
            "answerA": "a",
            "answerB": "the",
            "answerC": "it",
            "label": "2",
        },
        "Q: the cat sat . was it red ?\nA:",
        " a",
    ),
}
SUBJECT = {"question": "the cat ?", "choices": ["red", "blue", "a", "it"], "subject": "anatomy"}


@pytest.fixture
def asked(monkeypatch):
    """What the model is asked: (context, continuation) in order."""
    seen, loglikelihood = [], StagedModel.loglikelihood

    def watched(self, requests, **options):
        seen.extend(request.args for request in requests)
        return loglikelihood(self, requests, **options)

    monkeypatch.setattr(StagedModel, "loglikelihood", watched)
    return seen


def test_the_configuration_names_them_all():
    assert tuple(sorted(official.TASKS)) == OFFICIAL_TASKS
    for name, task in official.TASKS.items():
        assert (official.DEFINITIONS / task.definition.format("anatomy")).is_file(), name


@pytest.mark.parametrize("task", ROWS)
def test_prompts_are_those_of_lm_eval(subject, evaluation_of, write_lines, asked, task):
    plain, hub, context, choice = ROWS[task]
    found = {}
    for name, row in (("plain", plain), ("hub", hub)):
        options = {"task": task, "path": write_lines([row], f"{name}.jsonl")}
        metrics, predictions, _ = evaluation_of(subject, name, kind="multiple_choice", **options)
        found[name] = (asked.copy(), predictions[0]["log_likelihoods"], predictions[0]["acc"])
        asked.clear()
        assert metrics["protocol"]["lm_eval"]
        assert metrics["protocol"]["task_version"]
        assert "total_items" not in metrics["protocol"]
    if context is not None:
        assert found["plain"] == found["hub"]
        assert found["plain"][0][0] == (context, choice)
    else:
        assert found["plain"][0][0] == ("Cat: it sat on", choice)
        assert found["hub"][0][0] == ("Cat: it sat. on", choice)


def test_mmlu_has_a_task_for_every_subject_and_its_first_examples(subject, evaluation_of, tmp_path, asked):
    subject.model.config.max_position_embeddings = 512
    other = SUBJECT | {"subject": "virology"}
    splits = {"test": [SUBJECT, SUBJECT, other], "dev": [SUBJECT | {"question": f"dev {i}"} for i in range(3)]}
    splits["dev"] += [other | {"question": f"other {i}"} for i in range(3)]
    for split, rows in splits.items():
        lines = [json.dumps(row | {"gold": index % 4}) + "\n" for index, row in enumerate(rows)]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    options = {"kind": "multiple_choice", "task": "mmlu", "path": tmp_path, "few_shot": 2}
    metrics, predictions, _ = evaluation_of(subject, **options)
    assert [line["task"] for line in predictions] == ["mmlu_anatomy", "mmlu_anatomy", "mmlu_virology"]
    assert metrics["metrics"]["acc"]["n"] == 3
    context, choice = asked[0]
    assert choice == " A"
    assert context.startswith(
        "The following are multiple choice questions (with answers) about anatomy.\n\ndev 0\nA. red"
    )
    assert "dev 1\n" in context
    assert "dev 2\n" not in context
    assert context.endswith("the cat ?\nA. red\nB. blue\nC. a\nD. it\nAnswer:")
    metrics, _, _ = evaluation_of(subject, "cut", **options, max_items=1)
    assert (metrics["metrics"]["acc"]["n"], metrics["metrics"]["acc"]["total"]) == (2, 3)


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("piqa", [{"question": "q", "choices": ["a", "b"], "gold": 0}], r"row 0 has the columns question.*goal, sol1"),
        ("piqa", [{"goal": "q", "choices": ["a", "b", "c"], "gold": 0}], "row 0 has the columns"),
        ("piqa", [{"goal": "q", "choices": ["a", "b"], "gold": 2}], "a number within it"),
        ("arc_easy", [{"question": "q", "choices": ["a", "b"], "gold": -1}], "a number within it"),
        ("boolq", [{"passage": "p", "question": "q", "gold": 2}], "a number within it"),
        ("arc_easy", [{"question": "q", "choices": ["a", "b"], "gold": 2}], "accepted: question, choices, answerKey"),
        ("mmlu", [SUBJECT | {"gold": 1, "subject": "alchemy"}], "lm-eval has no subject 'alchemy'"),
    ],
)
def test_bad_rows_are_one_line(subject, evaluation_of, write_lines, task, rows, message):
    with pytest.raises(InputError, match=message) as error:
        evaluation_of(subject, kind="multiple_choice", task=task, path=write_lines(rows))
    assert "\n" not in str(error.value)


def test_a_directory_needs_a_file_for_each_split(subject, evaluation_of, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("{}")
    options = {"kind": "multiple_choice", "task": "arc_easy", "path": folder}
    with pytest.raises(InputError, match=r"one file test\.\* is needed; it holds train\.jsonl"):
        evaluation_of(subject, **options)
    row, *_ = ROWS["arc_easy"]
    (folder / "train.jsonl").rename(folder / "dev.jsonl")
    (folder / "test.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match=r"one file train\.\* is needed"):
        evaluation_of(subject, "few", **options, few_shot=1)


def test_legacy_scoring_tokenises_apart_and_without_bos(subject, evaluation_of, write_lines, monkeypatch):
    """Against a plain sum; the tokenizer adds BOS by itself, and joins the end of a context to what follows it."""
    calls = []
    encode = type(subject.tokenizer).encode

    def joining(tokenizer, text, add_special_tokens=True, **options):
        calls.append((text, add_special_tokens))
        ids = encode(tokenizer, text.replace("sat red", "the"), add_special_tokens=False, **options)
        return [tokenizer.bos_token_id, *ids] if add_special_tokens else ids

    monkeypatch.setattr(type(subject.tokenizer), "encode", joining)
    row = {"query": "it was a cat . it sat", "choices": ["red", "blue"], "gold": 0}
    options = {"kind": "multiple_choice", "task": "own", "path": write_lines([row])}
    values = {}
    for scoring in ("standard", "legacy"):
        metrics, predictions, _ = evaluation_of(subject, scoring, **options, scoring=scoring)
        values[scoring] = predictions[0]["log_likelihoods"]
        assert metrics["protocol"].get("scoring") == (None if scoring == "standard" else "legacy")
    ids = [encode(subject.tokenizer, text, add_special_tokens=False) for text in (row["query"], " red")]
    with torch.no_grad():
        logs = torch.log_softmax(subject.model(torch.tensor([ids[0] + ids[1]])).logits[0].double(), dim=-1)
    plain = sum(logs[len(ids[0]) + k - 1, token].item() for k, token in enumerate(ids[1]))
    assert values["legacy"][0] == pytest.approx(plain, abs=1e-4)
    assert values["standard"][0] != pytest.approx(plain, abs=1e-3)
    assert ("it was a cat . it sat", False) in calls


def test_a_choice_that_the_context_swallows_is_tokenised_by_itself(subject, evaluation_of, write_lines, monkeypatch):
    """Where joining makes one token of the context's end and the choice, nothing of the choice would be left."""
    encode = type(subject.tokenizer).encode

    def joining(tokenizer, text, **options):
        return encode(tokenizer, text.replace("sat red", "sat"), **options)

    monkeypatch.setattr(type(subject.tokenizer), "encode", joining)
    row = {"query": "it was a cat . it sat", "choices": ["red", "blue"], "gold": 0}
    options = {"kind": "multiple_choice", "task": "own", "path": write_lines([row])}
    _, (record,), _ = evaluation_of(subject, **options)
    _, (legacy,), _ = evaluation_of(subject, "legacy", **options, scoring="legacy")
    assert record["log_likelihoods"] == pytest.approx(legacy["log_likelihoods"], abs=1e-5)


def test_a_choice_without_tokens_is_one_line(subject, evaluation_of, write_lines):
    row = {"query": "it was a cat", "choices": ["\t", "blue"], "gold": 0}
    with pytest.raises(InputError, match="has no token"):
        evaluation_of(subject, kind="multiple_choice", task="own", path=write_lines([row]))
