"""A teacher's signals: probabilities of labels and of the top, full and with the top k."""

import pytest
import torch

from bitdistiller.distillation import signals
from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.signals import HiddenSignal, TopKSignal, chunk_rows

N, H, V = 7, 3, 10


@pytest.fixture
def full(monkeypatch):
    monkeypatch.setitem(signals.CHUNK_BYTES, "cpu", 2 * 4 * V)  # two positions at once
    generator = torch.Generator().manual_seed(1)
    hidden, weight = (torch.randn(size, H, generator=generator).double() for size in (N, V))
    return HiddenSignal(hidden, Head(weight, None, None, 1.0, V))


def all_rows(signal):
    return signal.rows(torch.arange(N))


def top_k(signal, k, **more):
    found, ids = all_rows(signal).topk(k)
    return TopKSignal(ids, found, all_rows(signal).scatter(-1, ids, -torch.inf).logsumexp(-1), **more)


def test_label_and_top_of_hidden_states(full):
    targets = torch.tensor([3, 0, -100, 9, 5, 1, 7])
    expected = torch.log_softmax(full.hidden @ full.head.weight.T, -1)
    found = full.label_log_probability(targets)
    assert found[2] == 0.0
    kept = targets >= 0
    torch.testing.assert_close(found[kept], expected[kept].gather(-1, targets[kept].unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(full.top_log_probability(), expected.amax(-1))


def test_no_positions_at_all(full):
    empty = HiddenSignal(full.hidden[:0], full.head)
    assert empty.label_log_probability(torch.zeros(0, dtype=torch.int64)).shape == (0,)
    assert empty.top_log_probability().shape == (0,)


def test_top_k_knows_the_top_and_the_labels_among_it(full):
    signal = top_k(full, 3, vocabulary=V)
    assert torch.equal(signal.top_log_probability(), full.top_log_probability())
    for place in range(3):
        targets = signal.ids[:, place]
        torch.testing.assert_close(signal.label_log_probability(targets), full.label_log_probability(targets))


def test_a_label_beyond_the_top_has_an_equal_share_of_the_rest(full):
    signal = top_k(full, 3, vocabulary=V)
    targets = all_rows(full).argmin(-1)
    rest = 1 - signal.log_probabilities.exp().sum(-1)
    torch.testing.assert_close(signal.label_log_probability(targets).exp(), rest / (V - 3))
    with pytest.raises(ValueError, match="needs label_log_probability or vocabulary"):
        top_k(full, 3).label_log_probability(targets)


def test_a_stored_label_probability_is_exact(full):
    targets = torch.tensor([3, 0, -100, 9, 5, 1, 7])
    stored = full.label_log_probability(targets)
    signal = top_k(full, 2, label_log_probability=stored)
    assert torch.equal(signal.label_log_probability(targets), stored)


def test_coarse_rows_are_distributions_of_both_sides(full):
    signal, positions = top_k(full, 4), torch.tensor([5, 0, 2])
    student = torch.log_softmax(torch.randn(3, V).double(), -1)
    for rows in (signal.rows(positions), signal.coarse(positions, student)):
        assert rows.shape == (3, 5)
        torch.testing.assert_close(rows.exp().sum(-1), torch.ones(3).double())


def test_the_rest_of_a_certain_student_is_not_lost_to_rounding():
    signal = TopKSignal(torch.tensor([[0]]), torch.tensor([[-0.1]]), torch.tensor([-2.35]))
    student = torch.log_softmax(torch.tensor([[60.0, 0.0, 0.0]]), -1)  # 1 - p is 0 in float32
    assert signal.coarse(torch.tensor([0]), student)[0, 1].item() == pytest.approx(-60 + 0.693147, abs=1e-4)


def test_a_missing_mass_of_zero_stays_finite():
    signal = TopKSignal(torch.tensor([[0]]), torch.zeros(1, 1), torch.tensor([-torch.inf]))
    assert torch.isfinite(signal.rows(torch.tensor([0]))).all()


def test_stored_half_precision_is_raised_to_float32(full):
    signal = top_k(full, 2)
    half = TopKSignal(signal.ids, signal.log_probabilities.half(), signal.rest.half())
    assert half.rows(torch.tensor([0])).dtype == torch.float32


def test_a_chunk_fills_32_mib_on_the_cpu_and_more_elsewhere():
    assert chunk_rows(32000, torch.device("cpu")) == 262
    assert chunk_rows(32000, torch.device("cuda")) == 2097
    assert chunk_rows(1 << 30, torch.device("cpu")) == 1
