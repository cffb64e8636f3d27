"""The mix: exact counts, no duplicates, no empty completions, one order whatever the shards."""

import random

import pytest

from bitdistiller.config import Mix
from bitdistiller.data.mixing import check_complete, mix_records
from bitdistiller.errors import InputError


def make_mix(*samples, **changes):
    sources = [{"dataset": name, "samples": n} for name, n in zip(("alpaca", "math"), samples, strict=False)]
    return Mix(**{"teacher": "t", "sources": sources, **changes})


def make_record(source, number, completion=None, prompt=None):
    dataset = ("alpaca", "math")[source]
    prompt = prompt or f"{dataset} {number}"
    completion = f"answer {number}" if completion is None else completion
    return {"id": f"{dataset}-{source}-{number}", "dataset": dataset, "prompt": prompt, "completion": completion}


def make_records(*counts):
    return [make_record(source, number) for source, count in enumerate(counts) for number in range(count)]


def ids(mixed):
    return [record["id"] for record in mixed.records]


def test_exact_counts_per_source():
    mixed = mix_records(make_mix(5, 3), make_records(7, 4))
    assert len(mixed.records) == 8
    counts = [count.as_json() for count in mixed.sources]
    assert counts == [
        {"dataset": "alpaca", "wanted": 5, "completed": 7, "duplicates": 0, "empty": 0, "mixed": 5},
        {"dataset": "math", "wanted": 3, "completed": 4, "duplicates": 0, "empty": 0, "mixed": 3},
    ]
    assert set(ids(mixed)) == {f"alpaca-0-{n}" for n in range(5)} | {f"math-1-{n}" for n in range(3)}


def test_numbers_order_as_numbers():
    assert set(ids(mix_records(make_mix(3), make_records(12)))) == {f"alpaca-0-{n}" for n in range(3)}


def test_duplicates_and_empty_completions_are_counted_and_dropped():
    records = make_records(4)
    records += [make_record(0, 4, " \n"), make_record(0, 5, ""), make_record(0, 6, "answer 1", "alpaca 1")]
    mixed = mix_records(make_mix(4), records)
    assert set(ids(mixed)) == {f"alpaca-0-{n}" for n in range(4)}
    assert (mixed.sources[0].empty, mixed.sources[0].duplicates) == (2, 1)


def test_the_same_prompt_with_another_completion_is_no_duplicate():
    mixed = mix_records(make_mix(2), [make_record(0, 0), make_record(0, 1, "other", "alpaca 0")])
    assert mixed.sources[0].duplicates == 0


def test_the_result_does_not_depend_on_the_order_of_records():
    records = make_records(20, 20)
    expected = mix_records(make_mix(15, 10), records).records
    for seed in range(3):
        shuffled = random.Random(seed).sample(records, len(records))
        assert mix_records(make_mix(15, 10), shuffled).records == expected


def test_the_shuffle_is_fixed_by_the_seed():
    records = make_records(30)
    first = ids(mix_records(make_mix(30), records))
    assert ids(mix_records(make_mix(30), records)) == first
    other = ids(mix_records(make_mix(30, seed=43), records))
    assert other != first
    assert sorted(other) == sorted(first)
    assert first != sorted(first, key=lambda name: int(name.rpartition("-")[2]))


def test_too_few_usable_completions_is_one_line_unless_allowed():
    records = [*make_records(3), make_record(0, 3, "")]
    with pytest.raises(
        InputError, match=r"alpaca has 3 usable completions of 4, 5 are wanted \(1 empty, 0 duplicates\)"
    ):
        mix_records(make_mix(5), records)
    assert len(mix_records(make_mix(5, allow_fewer=True), records).records) == 3


@pytest.mark.parametrize("foreign", [make_record(1, 0), {**make_record(0, 9), "dataset": "code"}])
def test_completions_of_another_mix_are_refused(foreign):
    with pytest.raises(InputError, match="belong to another mix"):
        mix_records(make_mix(3), [*make_records(4), foreign])


def test_every_prompt_once():
    check_complete(["a", "b"], dropped=1, expected=3)
    with pytest.raises(InputError, match=r"hold 2 completions and dropped 0 prompts, together not the 3"):
        check_complete(["a", "b"], dropped=0, expected=3)
    with pytest.raises(InputError, match=r"1 prompts occur in more than one shard \(a, "):
        check_complete(["a", "b", "a"], dropped=0, expected=3)
