"""Records as sequences: the teacher's own tokens, the end of sequence, the length limit; the vocabulary's digest."""

import pytest
from helpers.tiny import make_tokenizer

from bitdistiller.data.tokenising import encode_prompt, encode_record, encode_records, vocabulary_digest

START, END = 1, 2


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def record(**changes):
    return {"prompt": "The cat", "completion": " sat", "finish_reason": "eos", **changes}


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_prompt_has_the_tokenizers_own_start(tokenizer):
    assert encode_prompt(tokenizer, "The cat") == [START, *plain(tokenizer, "The cat")]


def test_a_prompt_has_no_end_even_when_the_tokenizer_adds_one():
    from tokenizers import processors

    tokenizer = make_tokenizer()
    both = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)])
    tokenizer.backend_tokenizer.post_processor = both
    assert tokenizer("The cat")["input_ids"][-1] == END
    assert encode_prompt(tokenizer, "The cat") == [START, *plain(tokenizer, "The cat")]


def test_prompt_completion_and_end(tokenizer):
    found = encode_record(tokenizer, record(), 100)
    prompt, completion = [START, *plain(tokenizer, "The cat")], plain(tokenizer, " sat")
    assert found.input_ids == [*prompt, *completion, END]
    assert found.completion_start == len(prompt)
    assert found.completion_end == len(found.input_ids)


def test_an_end_that_the_teacher_did_not_write_is_no_part_of_the_completion(tokenizer):
    found = encode_record(tokenizer, record(finish_reason="length"), 100)
    assert found.input_ids[-1] == END
    assert found.completion_end == len(found.input_ids) - 1


def test_the_teachers_own_tokens_are_kept(tokenizer):
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "sat"]
    assert letters != plain(tokenizer, "sat")  # tokenising the text again would merge them
    found = encode_record(tokenizer, record(completion="sat", completion_ids=letters), 100)
    assert found.input_ids == [*encode_prompt(tokenizer, "The cat"), *letters, END]


@pytest.mark.parametrize("length", range(1, 12))
def test_max_length(tokenizer, length):
    whole = encode_record(tokenizer, record(), 100)
    found = encode_record(tokenizer, record(), length)
    assert found.input_ids == whole.input_ids[:length]
    assert found.completion_start == min(whole.completion_start, len(found.input_ids))
    assert found.completion_end == min(whole.completion_end, len(found.input_ids))


def test_many_records(tokenizer):
    records = [record(), record(prompt="A")]
    assert encode_records(tokenizer, records, 9) == [encode_record(tokenizer, each, 9) for each in records]


def test_the_vocabulary_digest_tells_vocabularies_apart(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    digest = vocabulary_digest(tokenizer)
    assert vocabulary_digest(AutoTokenizer.from_pretrained(tmp_path)) == digest
    assert vocabulary_digest(make_tokenizer()) == digest
    assert vocabulary_digest(make_tokenizer(120)) != digest
    extended = make_tokenizer()
    extended.add_tokens(["<new>"])
    assert vocabulary_digest(extended) != digest
