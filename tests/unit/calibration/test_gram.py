"""Gram matrices."""

import pytest
import torch

from bitdistiller.calibration import GramAccumulator, gram_matrix
from bitdistiller.calibration.gram import gram_root
from bitdistiller.errors import InputError


def naive(x, group_size):
    parts = x.double().split(group_size, dim=1)
    return torch.stack([part.T @ part for part in parts]).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gram_of_every_group(dtype):
    x = torch.randn(50, 24).to(dtype)
    gram = gram_matrix(x, 8)
    assert (gram.shape, gram.dtype) == ((3, 8, 8), torch.float32)
    torch.testing.assert_close(gram, naive(x, 8))
    assert gram_matrix(x, -1).shape == (1, 24, 24)


def test_batches_add_up(monkeypatch):
    monkeypatch.setattr("bitdistiller.calibration.gram.TOKENS_AT_ONCE", 7)
    x = torch.randn(4, 10, 24)
    total = GramAccumulator(8)
    for batch in x.split(3):
        total.add(batch)
    assert total.tokens == 40
    torch.testing.assert_close(total.gram(), naive(x.flatten(0, 1), 8))


@pytest.mark.parametrize("stride", [1, 3, 10, 40])
def test_a_stride_keeps_the_same_tokens_whatever_the_batches(stride):
    x = torch.randn(47, 8)
    for size in (1, 5, 47):
        kept = GramAccumulator(8, stride)
        for batch in x.split(size):
            kept.add(batch)
        assert kept.tokens == len(x[::stride])
        torch.testing.assert_close(kept.gram(), naive(x[::stride], 8))


def test_roots_of_singular_grams():
    x = torch.randn(3, 16)
    gram = gram_matrix(x, 8)
    root = gram_root(gram)
    torch.testing.assert_close((root @ root.mT).float(), gram, atol=1e-5, rtol=1e-5)


def test_group_size_must_divide():
    with pytest.raises(InputError, match="group_size 7 does not divide its 24 input features"):
        gram_matrix(torch.randn(2, 24), 7)
    with pytest.raises(RuntimeError, match="no token"):
        GramAccumulator(8).gram()


def test_padded_groups():
    x = torch.randn(50, 20)
    padded = GramAccumulator(8, pad=True)
    padded.add(x)
    torch.testing.assert_close(padded.gram(), naive(torch.nn.functional.pad(x, (0, 4)), 8))
