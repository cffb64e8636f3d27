"""The demo tokenizer: lossless, digits and newlines alone, prompts that encode as prefixes, the same on every run."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bitdistiller.demo.corpus import PROBLEM_TRACKS, TRACKS, documents, full_text
from bitdistiller.demo.tokenizer import train_tokenizer

TEXTS = [full_text(item) for track in TRACKS for item in documents(track, "train", count=200)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """Trained, saved and loaded again as any stage loads it."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 512, 128).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", [*TEXTS[::97], "Zoë paid 12 €\r\n\tand left 🦊 .", "  two  spaces ", ""])
def test_round_trip_of_any_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_training_twice_gives_the_same_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    again = train_tokenizer(TEXTS, 512, 128)
    assert again.backend_tokenizer.to_str() == train_tokenizer(TEXTS, 512, 128).backend_tokenizer.to_str()
    assert again.get_vocab() == tokenizer.get_vocab()
    assert len(tokenizer) == 512


def test_digits_and_newlines_stand_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in tokenizer.get_vocab():
        assert sum(character.isdigit() or character == "Ċ" for character in token) <= 1
        if any(character.isascii() and character.isdigit() for character in token):
            assert len(token) == 1


@pytest.mark.parametrize("track", PROBLEM_TRACKS)
def test_a_prompt_encodes_as_a_prefix_of_prompt_and_completion(tokenizer: PreTrainedTokenizerFast, track: str) -> None:
    for item in documents(track, "test", count=60):
        apart = tokenizer(item["prompt"])["input_ids"]
        apart += tokenizer(item["completion"], add_special_tokens=False)["input_ids"]
        assert apart == tokenizer(full_text(item))["input_ids"]


def test_special_tokens_are_distinct(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
