"""Sequences as padded batches, and the part held out for evaluation."""

import pytest
import torch
from bitdistiller.distillation.dataset import Sequences, collate, split

from bitdistiller.data.tokenising import Sequence
from bitdistiller.errors import InputError


def test_a_batch_is_padded_on_the_right():
    batch = collate([Sequence([1, 5, 6, 2], 2, 4), Sequence([1, 7], 1, 2)], pad=9)
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2], [1, 7, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 5, 6, 2], [1, 7, -100, -100]]
    assert batch["completion"].tolist() == [[False, False, True, True], [False, True, False, False]]
    assert {key: value.dtype for key, value in batch.items() if key != "completion"} == dict.fromkeys(
        ("input_ids", "attention_mask", "labels"), torch.int64
    )


def test_an_appended_end_is_a_label_but_no_part_of_the_completion():
    batch = collate([Sequence([1, 5, 6, 2], 2, 3)], pad=2)
    assert batch["labels"].tolist() == [[1, 5, 6, 2]]
    assert batch["completion"].tolist() == [[False, False, True, False]]


def test_padding_that_is_the_end_token_is_still_ignored():
    batch = collate([Sequence([1, 2], 1, 2), Sequence([1, 3, 2], 1, 3)], pad=2)
    assert batch["labels"].tolist() == [[1, 2, -100], [1, 3, 2]]


@pytest.mark.parametrize(("count", "fraction", "held"), [(10, 0.2, 2), (8000, 0.2, 1600), (7, 0.2, 1), (5, 0.0, 0)])
def test_the_first_part_is_held_out(count, fraction, held):
    sequences = [Sequence([n], 0, 1) for n in range(count)]
    train, evaluation = split(sequences, fraction)
    assert evaluation == sequences[:held]
    assert train == sequences[held:]


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.2), (1, 0.6)])
def test_nothing_left_to_train_on_is_one_line(count, fraction):
    with pytest.raises(InputError, match=f"the mix has only {count} samples; nothing is left"):
        split([Sequence([1], 0, 1)] * count, fraction)


def test_sequences_by_index():
    sequences = [Sequence([n], 0, 1) for n in range(3)]
    assert len(Sequences(sequences)) == 3
    assert Sequences(sequences)[2] is sequences[2]
