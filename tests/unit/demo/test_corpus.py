"""The generated corpus: the same on every call, its splits disjoint, its answers right, its code executable."""

from __future__ import annotations

import ast
import re
from unittest import mock

import pytest

from bitdistiller.demo import corpus
from bitdistiller.demo.corpus import PROBLEM_TRACKS, SPLITS, TRACKS, documents, full_text, split_of
from bitdistiller.errors import InputError

WORKED = re.compile(r"(\d\d)([+-])(\d\d): (\d[+-]\d)=(\d), (\d[+-]\d)=(\d)\. The answer is: (\d\d)")


@pytest.mark.parametrize("track", TRACKS)
def test_documents_are_a_function_of_the_seed_and_grow_by_appending(track: str) -> None:
    many = documents(track, "train", seed=3, count=300)
    assert many[:120] == documents(track, "train", seed=3, count=120)
    assert many != documents(track, "train", seed=4, count=300)
    assert len({item["id"] for item in many}) == 300


@pytest.mark.parametrize("track", TRACKS)
def test_splits_are_disjoint_whatever_the_seeds_and_hold_no_duplicates(track: str) -> None:
    texts = {
        split: [full_text(item) for item in documents(track, split, seed, 600)] for seed, split in enumerate(SPLITS)
    }
    assert all(len(set(found)) == 600 for found in texts.values())
    assert sum(len(set(found)) for found in texts.values()) == len(set().union(*texts.values()))


def test_no_test_operands_occur_in_training() -> None:
    def operands(split: str, count: int) -> set[tuple[frozenset[int], str]]:
        found = (WORKED.search(item["completion"]) for item in documents("demo-math", split, 1, count))
        return {(frozenset((int(m[1]), int(m[3]))), m[2]) for m in found if m}

    assert not operands("train", 5000) & operands("test", 500)


def test_no_test_operation_with_its_constants_occurs_in_training() -> None:
    def bodies(split: str, count: int) -> set[tuple[str, ...]]:
        items = documents("demo-code", split, 1, count)
        return {(re.sub(r"\w+\(\w+\)", "f", item["prompt"]), item["completion"]) for item in items}

    assert not bodies("train", 5000) & bodies("test", 400)


def test_arithmetic_is_right_and_ends_in_the_answer() -> None:
    for item in documents("demo-math", "test", 5, 300):
        match = WORKED.fullmatch(item["completion"])
        assert match
        a, b, answer = int(match[1]), int(match[3]), int(match[8])
        assert answer == (a + b if match[2] == "+" else a - b) == int(match[7] + match[5])
        assert item["answer"] == match[8]
        assert match[4] == f"{a % 10}{match[2]}{b % 10}"
        assert match[6] == f"{a // 10}{match[2]}{b // 10}"
        assert {match[1], match[3]} <= set(re.findall(r"\d+", item["prompt"]))


@pytest.mark.parametrize("split", SPLITS)
def test_reference_completions_pass_their_tests(split: str) -> None:
    for item in documents("demo-code", split, 5, 400):
        assert run_test(item, item["completion"])


def test_tests_fail_for_another_constant_and_another_comparison() -> None:
    for item in documents("demo-code", "test", 5, 300):
        constant = re.search(r"\d+", item["completion"].replace("total = 0", "total = _"))
        assert constant
        first, last = constant.span()
        wrong = item["completion"][:first] + str(int(constant[0]) + 1) + item["completion"][last:]
        assert not run_test(item, wrong), wrong
        for one, other in ((" > ", " < "), (" < ", " > ")):
            if one in item["completion"]:
                assert not run_test(item, item["completion"].replace(one, other))


def run_test(item: dict[str, str], completion: str) -> bool:
    program = item["prompt"] + completion + "\n" + item["test"]
    ast.parse(program)
    names: dict[str, object] = {}
    exec(program, names)
    try:
        names["check"](names[item["entry_point"]])
    except AssertionError:
        return False
    return True


def test_items_carry_what_the_stages_read() -> None:
    assert set(documents("demo-text", "test", count=1)[0]) == {"id", "dataset", "text"}
    assert set(documents("demo-math", "test", count=1)[0]) == {"id", "dataset", "prompt", "completion", "answer"}
    assert set(documents("demo-code", "test", count=1)[0]) == {
        "id", "dataset", "prompt", "completion", "test", "entry_point",
    }  # fmt: skip
    for track in PROBLEM_TRACKS:
        assert all(item["prompt"].endswith("\n") for item in documents(track, "train", count=50))


def test_a_story_keeps_its_cast() -> None:
    for item in documents("demo-text", "train", count=200):
        text = item["text"]
        assert "{" not in text
        assert "  " not in text
        assert len(text) > 250


def test_split_sizes() -> None:
    owners = [split_of(str(index)) for index in range(5000)]
    assert 0.08 < owners.count("test") / 5000 < 0.12
    assert 0.08 < owners.count("validation") / 5000 < 0.12


def test_bad_requests_name_what_is_accepted() -> None:
    with pytest.raises(InputError, match="demo-math"):
        documents("demo-poems", "train")
    with pytest.raises(InputError, match="validation"):
        documents("demo-math", "dev")
    with mock.patch.object(corpus, "PATIENCE", 5), pytest.raises(InputError, match="500 were asked for"):
        documents("demo-code", "test", count=500)
