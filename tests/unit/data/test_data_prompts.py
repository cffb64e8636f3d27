"""Prompts: exact counts, distinct, in an order and with seeds that only the mix's seed fixes."""

import json

import pytest
from helpers.tiny import SENTENCES, make_tokenizer

from bitdistiller.config import Mix, PromptSource
from bitdistiller.data.prompts import mix_prompts, prompt_seed, shard_prompts, source_prompts
from bitdistiller.errors import InputError


@pytest.fixture
def rows(tmp_path):
    """`rows(values)`: a JSON lines file of {"prompt": value}."""

    def write(values, column="prompt"):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({column: value}) + "\n" for value in values))
        return path

    return write


def chosen(source, seed=42, index=0, tokenizer=None):
    return source_prompts(source, index, seed, tokenizer)


def texts(found):
    return [prompt.text for prompt in found]


def test_exact_count_numbered_and_named(rows):
    source = PromptSource(dataset="prompts", samples=5, prompts=7, path=rows(f"p{n}" for n in range(20)))
    found = chosen(source, index=3)
    assert len(set(texts(found))) == 7
    assert [prompt.id for prompt in found] == [f"prompts-3-{n}" for n in range(7)]
    assert {prompt.dataset for prompt in found} == {"prompts"}


def test_spare_prompts_are_three_percent_and_at_least_one():
    count = {n: PromptSource(dataset="alpaca", samples=n).prompt_count for n in (1, 33, 34, 100, 101, 3000)}
    assert count == {1: 2, 33: 34, 34: 36, 100: 103, 101: 105, 3000: 3090}


def test_duplicates_and_blank_prompts_are_not_chosen(rows):
    path = rows(["a", "b", "a", " ", "", "b", "c"])
    source = PromptSource(dataset="prompts", samples=3, prompts=3, path=path)
    assert sorted(texts(chosen(source))) == ["a", "b", "c"]


def test_the_order_is_fixed_by_the_seed(rows):
    source = PromptSource(dataset="prompts", samples=30, prompts=30, path=rows(f"p{n}" for n in range(30)))
    assert texts(chosen(source)) == texts(chosen(source))
    assert texts(chosen(source)) != texts(chosen(source, seed=43))
    assert sorted(texts(chosen(source))) == sorted(texts(chosen(source, seed=43)))
    fewer = source.model_copy(update={"samples": 10, "prompts": 10})
    assert texts(chosen(fewer)) == texts(chosen(source))[:10]


def test_a_source_with_too_few_rows_is_one_line(rows):
    source = PromptSource(dataset="prompts", samples=3, path=rows(["a", "b"]))
    with pytest.raises(InputError, match=r"dataset prompts \(.*rows\.jsonl\): 2 prompts fit the rule, 4 are needed"):
        chosen(source)


def test_first_rows_can_be_left_out(rows):
    source = PromptSource(dataset="prompts", samples=2, prompts=2, skip_rows=3, path=rows(f"p{n}" for n in range(5)))
    assert sorted(texts(chosen(source))) == ["p3", "p4"]
    with pytest.raises(InputError, match="0 prompts fit"):
        chosen(source.model_copy(update={"skip_rows": 99}))


def test_starts_in_tokens(rows):
    tokenizer = make_tokenizer()
    path = rows([*SENTENCES, "   ", "cat"], column="text")
    source = PromptSource(dataset="text", samples=4, prompts=5, path=path, prompt_tokens=6, minimum_characters=0)
    found = texts(chosen(source, tokenizer=tokenizer))
    assert "cat" in found
    for text in set(found) - {"cat"}:
        assert any(sentence.startswith(text) for sentence in SENTENCES)
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 6


def test_a_text_without_any_token_is_no_prompt(rows):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    path = rows(["   ", "a b a"], column="text")
    source = PromptSource(dataset="text", samples=1, prompts=1, path=path, prompt_tokens=2, minimum_characters=0)
    assert texts(chosen(source, tokenizer=tokenizer)) == ["a b"]


def test_seeds_depend_on_mix_seed_dataset_and_text_alone(rows):
    assert prompt_seed(42, "alpaca", "hello") == prompt_seed(42, "alpaca", "hello")
    others = [(43, "alpaca", "hello"), (42, "math", "hello"), (42, "alpaca", "hello ")]
    assert len({prompt_seed(*each) for each in [(42, "alpaca", "hello"), *others]}) == 4
    assert all(0 <= prompt_seed(n, "alpaca", "hello") < 2**63 for n in range(50))
    assert prompt_seed(42, "alpaca", "hello") == 9057426531982431790
    source = PromptSource(dataset="prompts", samples=3, prompts=3, path=rows(["a", "b", "c"]))
    seeds = {prompt.text: prompt.seed for prompt in chosen(source, index=0)}
    assert seeds == {prompt.text: prompt.seed for prompt in chosen(source, index=5)}
    assert len(set(seeds.values())) == 3


def test_a_mix_is_its_sources_one_after_another_and_shards_part_it(rows):
    path = rows(f"p{n}" for n in range(10))
    sources = [{"dataset": "prompts", "samples": n, "prompts": n, "path": path} for n in (4, 3)]
    found = mix_prompts(Mix(teacher="t", sources=sources), None)
    assert [prompt.id for prompt in found] == [f"prompts-0-{n}" for n in range(4)] + [
        f"prompts-1-{n}" for n in range(3)
    ]
    for shards in (1, 2, 3, 7, 9):
        parts = [shard_prompts(found, shard, shards) for shard in range(shards)]
        assert sorted(p.id for part in parts for p in part) == sorted(p.id for p in found)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("shard", [-1, 2, 5])
def test_a_shard_out_of_range_is_one_line(shard):
    with pytest.raises(InputError, match=rf"--shard {shard}: must be from 0 to 1"):
        shard_prompts([], shard, 2)


def test_datasets_without_a_place_on_the_hub_need_a_path():
    with pytest.raises(InputError, match="dataset demo-math has no place on the hub; give a path"):
        chosen(PromptSource(dataset="demo-math", samples=1))
