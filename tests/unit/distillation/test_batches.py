"""Sequences as padded batches, and the part held out for evaluation."""

import pytest
import torch
from helpers.tokens import write_sequences

from bitdistiller.data.tokenising import Sequence
from bitdistiller.distillation.batches import collate
from bitdistiller.distillation.steps import split
from bitdistiller.errors import InputError


def padded(directory, sequences, pad):
    file = write_sequences(directory / "tokens", sequences, pad)
    return collate(file, tuple((sample,) for sample in range(len(file))), mask_prompt=False, packed=False)


def test_a_batch_is_padded_on_the_right(tmp_path):
    batch = padded(tmp_path, [Sequence([1, 5, 6, 2], 2, 4), Sequence([1, 7], 1, 2)], pad=9)
    assert batch.input_ids.tolist() == [[1, 5, 6, 2], [1, 7, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [[1, 5, 6, 2], [1, 7, -100, -100]]
    assert batch.targets.tolist() == [[5, 6, 2, -100], [7, -100, -100, -100]]
    assert batch.completion.tolist() == [[False, False, True, True], [False, True, False, False]]
    whole = (batch.input_ids, batch.attention_mask, batch.labels, batch.targets)
    assert {tensor.dtype for tensor in whole} == {torch.int64}


def test_an_appended_end_is_a_label_but_no_part_of_the_completion(tmp_path):
    batch = padded(tmp_path, [Sequence([1, 5, 6, 2], 2, 3)], pad=2)
    assert batch.labels.tolist() == [[1, 5, 6, 2]]
    assert batch.completion.tolist() == [[False, False, True, False]]


def test_padding_that_is_the_end_token_is_still_ignored(tmp_path):
    batch = padded(tmp_path, [Sequence([1, 2], 1, 2), Sequence([1, 3, 2], 1, 3)], pad=2)
    assert batch.labels.tolist() == [[1, 2, -100], [1, 3, 2]]
    assert batch.targets.tolist() == [[2, -100, -100], [3, 2, -100]]


@pytest.mark.parametrize(("count", "fraction", "held"), [(10, 0.2, 2), (8000, 0.2, 1600), (7, 0.2, 1), (5, 0.0, 0)])
def test_the_first_part_is_held_out(count, fraction, held):
    assert split(count, fraction) == held


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.2), (1, 0.6)])
def test_nothing_left_to_train_on_is_one_line(count, fraction):
    with pytest.raises(InputError, match=f"the mix has only {count} samples; nothing is left"):
        split(count, fraction)
