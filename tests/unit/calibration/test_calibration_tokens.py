"""Choosing calibration tokens."""

import pytest

from bitdistiller.calibration import calibration_tokens
from bitdistiller.errors import InputError


def tokenizer(text, **_):
    return {"input_ids": [len(word) for word in text.split()]}


def test_texts_are_joined_and_cut():
    tokens = calibration_tokens(["a bb ccc", "dddd", "", "  ", "eeeee ffffff ggggggg"], tokenizer, sequence_length=3)
    assert tokens.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert str(tokens.dtype) == "torch.int64"


def test_long_texts_are_skipped_and_do_not_count():
    texts = ["a a a a", "bb", "ccc ccc", "dddd"]
    assert calibration_tokens(texts, tokenizer, 2, 3, max_tokens_per_text=3).tolist() == [[2, 3, 3]]
    assert calibration_tokens(texts, tokenizer, 2, 5, max_tokens_per_text=None).tolist() == [[1, 1, 1, 1, 2]]


def test_texts_beyond_the_samples_are_not_read():
    def texts():
        yield "a bb"
        raise AssertionError("read too far")

    assert calibration_tokens(texts(), tokenizer, samples=1, sequence_length=2).tolist() == [[1, 2]]


def test_too_little_text_is_refused():
    with pytest.raises(InputError, match="the texts give 2 tokens, less than one sequence of 4"):
        calibration_tokens(["a bb"], tokenizer, sequence_length=4)
