"""Data-free generation: every token of the vocabulary, greedy to 3, 4 and 5 tokens, then drawn; killed or not."""

import pytest
import torch
from helpers.tiny import VOCABULARY, make_model, make_tokenizer, write_model
from pydantic import ValidationError

from bitdistiller.config import Mix
from bitdistiller.data.mixing import mix_records
from bitdistiller.data.prompts import mix_prompts, shard_prompts
from bitdistiller.data.stage import run as run_mix
from bitdistiller.data.tokenising import cut_blocks, encode_record, vocabulary_size
from bitdistiller.errors import InputError
from bitdistiller.generation import shards as shards_module
from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.sampling import PromptNoise
from bitdistiller.generation.shards import complete_prompts
from bitdistiller.generation.stage import run as run_generate
from bitdistiller.generation.transformers_engine import TransformersEngine
from bitdistiller.stages.files import read_json

NEW = 12


def mix(**source):
    return Mix(
        teacher="model",
        sources=[{"dataset": "vocabulary", **source}],
        generation={"max_new_tokens": NEW, "temperature": 1.0, "top_k": 50, "batch_size": 16, "commit_every": 16},
    )


def naive(model, token, prefix, seed, end, top_k):
    """One text, token by token without a cache: greedy up to `prefix` tokens in all, then the seed's own numbers."""
    ids, noise = [token], None
    while len(ids) < NEW + 1:
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        if len(ids) < prefix:
            chosen = int(logits.argmax())
        else:
            noise = noise or PromptNoise([seed])
            best = set(logits.topk(top_k).indices.tolist())
            exponentials = noise.step(len(logits))[0]
            chosen = max(best, key=lambda i: float(logits[i] - exponentials[i].log()))
        if chosen == end:
            return ids[1:], "eos"
        ids.append(chosen)
    return ids[1:], "length"


def test_every_token_with_every_prefix_once():
    prompts = mix_prompts(mix(), make_tokenizer())
    size = vocabulary_size(make_tokenizer())
    assert size == VOCABULARY
    assert {(p.ids[0], p.greedy + 1) for p in prompts} == {(t, j) for t in range(size) for j in (3, 4, 5)}
    assert len(prompts) == len({p.id for p in prompts}) == len({p.seed for p in prompts}) == 3 * size


@pytest.mark.parametrize("count", [1, 2, 7, 64, 500])
def test_any_number_of_shards_holds_each_prompt_once(count):
    prompts = mix_prompts(mix(), make_tokenizer())
    dealt = [p.id for shard in range(count) for p in shard_prompts(prompts, shard, count)]
    assert sorted(dealt) == sorted(p.id for p in prompts)


def test_texts_are_those_of_a_naive_loop():
    model, tokenizer = make_model(2, scale=2.0), make_tokenizer()
    prompts = mix_prompts(mix(), tokenizer)[1::29]  # token 0 is padding, whose logits all tie
    engine = TransformersEngine(model, tokenizer, batch_size=4)
    found = complete_prompts(engine, prompts, Sampling(NEW, temperature=1.0, top_k=5))
    for prompt, completion in zip(prompts, found, strict=True):
        ids, reason = naive(model, prompt.ids[0], prompt.greedy + 1, prompt.seed, tokenizer.eos_token_id, 5)
        assert (completion.token_ids, completion.finish_reason) == (ids, reason)
        assert completion.text == tokenizer.decode(ids, skip_special_tokens=True)
        assert completion.prompt_tokens == 1
    assert {completion.finish_reason for completion in found} == {"eos", "length"}


def test_some_of_a_vocabulary_by_the_seed():
    few = mix_prompts(mix(samples=20), make_tokenizer())
    assert len(few) == 21
    assert {p.id for p in few} < {p.id for p in mix_prompts(mix(), make_tokenizer())}
    with pytest.raises(InputError, match="128 tokens with 3 prefixes make 384 prompts, 412 are needed"):
        mix_prompts(mix(samples=400), make_tokenizer())


def test_killed_shards_go_on_and_the_merge_counts_them(tmp_path, monkeypatch):
    model, recipe = write_model(tmp_path / "model", 2, scale=2.0), mix()
    common = {"model": model, "dtype": "float32", "shards": 3, "time_budget": None}

    def outputs(name):
        return [tmp_path / name / f"{shard}" for shard in range(3)]

    for shard, output in enumerate(outputs("whole")):
        run_generate(recipe, shard=shard, output=output, work=None, **common)
    real, calls = shards_module.write_text, []

    class Killed(BaseException):
        pass

    def write(path, text):
        calls.append(path)
        if len(calls) == 4:
            raise Killed
        real(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(shards_module, "write_text", write)
        with pytest.raises(Killed):
            run_generate(recipe, shard=0, output=outputs("killed")[0], work=tmp_path / "work", **common)
    run_generate(recipe, shard=0, output=outputs("killed")[0], work=tmp_path / "work", **common)
    names = [path / "completions.jsonl" for path in (outputs("killed")[0], outputs("whole")[0])]
    assert names[0].read_bytes() == names[1].read_bytes()
    assert read_json(outputs("whole")[0] / "digest.json")["counts"]["vocabulary_size"] == VOCABULARY

    run_mix(recipe, shards=outputs("whole"), output=tmp_path / "mix", work=None, time_budget=None)
    (source,) = read_json(tmp_path / "mix" / "digest.json")["counts"]["sources"]
    assert source["completed"] == 3 * VOCABULARY
    assert source["mixed"] + source["empty"] + source["duplicates"] == 3 * VOCABULARY
    with pytest.raises(InputError, match=r"together not the 384 of the recipe; give every shard"):
        run_mix(recipe, shards=outputs("whole")[:2], output=tmp_path / "less", work=None, time_budget=None)


def test_records_keep_the_tokens_and_get_the_start_token():
    tokenizer = make_tokenizer()
    record = {"id": "vocabulary-0-9", "dataset": "vocabulary", "prompt": "x", "prompt_ids": [9], "completion": "yz"}
    record |= {"completion_ids": [17, 18, 19], "finish_reason": "length"}
    sequence = encode_record(tokenizer, record, 64)
    assert sequence.input_ids == [1, 9, 17, 18, 19, 2]
    assert (sequence.completion_start, sequence.completion_end) == (2, 5)
    assert mix_records(mix(), [record]).records == [record]


def test_blocks_are_all_tokens_in_order_and_of_one_length():
    tokenizer = make_tokenizer()
    records = [
        {"prompt": "", "prompt_ids": [n], "completion_ids": [20 + n] * n, "completion": "", "finish_reason": "eos"}
        for n in range(3, 12)
    ]
    whole = [encode_record(tokenizer, record, 10**9) for record in records]
    stream = [token for sequence in whole for token in sequence.input_ids]
    blocks = list(cut_blocks(whole, 16))
    assert [token for block in blocks for token in block.input_ids] == stream[: len(stream) // 16 * 16]
    assert all(len(block.input_ids) == block.completion_end == 16 for block in blocks)


def test_a_text_needs_room_behind_its_prefix():
    with pytest.raises(ValidationError, match=r"max_new_tokens \(4\) must be at least the longest prefix \(5\)"):
        Mix(teacher="m", sources=[{"dataset": "vocabulary"}], generation={"max_new_tokens": 4})
    with pytest.raises(ValidationError, match="dataset wikitext needs samples"):
        Mix(teacher="m", sources=[{"dataset": "wikitext"}])
