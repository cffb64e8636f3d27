"""Steps: a function of seed and number, the same sequences for any layout and number of processes."""

import numpy as np
import pytest
import torch
from helpers.tokens import PAD, write_token_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitdistiller.config import Training
from bitdistiller.distillation.losses.base import IGNORE
from bitdistiller.distillation.steps import Steps, order
from bitdistiller.errors import InputError

LENGTHS = [3 + 11 * n % 14 for n in range(22)] + [1]
LAYOUTS = ("packed", "grouped", "padded")
RUN = {"batch_size": 6, "micro_batch_size": 2, "max_length": 16, "evaluation_fraction": 0.2, "epochs": 2.5}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_token_file(tmp_path_factory.mktemp("tokens") / "t", LENGTHS)


def steps(file, layout="packed", **training):
    return Steps(file, Training(**{**RUN, **training}), layout)


def test_the_order_of_an_epoch_is_seeded_and_known():
    assert order(6, 42, 0).tolist() == [3, 5, 4, 0, 1, 2]
    assert sorted(order(50, 1, 3)) == list(range(50))
    assert not np.array_equal(order(50, 1, 3), order(50, 1, 4))
    assert not np.array_equal(order(50, 1, 3), order(50, 2, 3))
    assert order(5, -1, 0).tolist() == order(5, 2**32 - 1, 0).tolist()


def test_an_epoch_holds_every_training_sample_once_and_its_last_step_may_be_smaller(file):
    run = steps(file)
    assert (run.held_out, run.samples, run.per_epoch, run.total) == (5, 18, 3, 8)
    epoch = [sample for step in range(3) for sample in run.step_samples(step)]
    assert sorted(epoch) == list(range(5, 23))
    ragged = steps(file, batch_size=8)
    assert [len(ragged.step_samples(step)) for step in range(6)] == [8, 8, 2, 8, 8, 2]
    assert ragged.step_samples(0) != ragged.step_samples(3)
    assert steps(file, max_steps=5).total == 5


def test_a_step_is_a_function_of_its_number(file):
    forward = [steps(file).step_samples(step) for step in range(8)]
    backward = steps(file)
    assert [backward.step_samples(step) for step in reversed(range(8))] == forward[::-1]


def test_nothing_left_to_train_on(tmp_path):
    with pytest.raises(InputError, match="the mix has only 1 samples; nothing is left beside the evaluation split"):
        steps(write_token_file(tmp_path / "one", [3]), evaluation_fraction=0.6)


def test_sequences_longer_than_a_row(file):
    with pytest.raises(InputError, match=r"holds a sequence of 16 tokens, more than max_length \(10\)"):
        steps(file, max_length=10)


def rows_of(batch):
    """{sample: (ids, labels, targets, completion)} read back from a micro-batch."""
    found = {}
    for index, sample in enumerate(batch.samples):
        row, place = torch.nonzero(batch.sequence == index, as_tuple=True)
        assert (row == row[0]).all()
        assert torch.equal(batch.position_ids[row, place], torch.arange(len(place)))
        names = ("input_ids", "labels", "targets", "completion")
        found[sample] = tuple(getattr(batch, name)[row, place].tolist() for name in names)
    return found


def expected(file, sample, mask_prompt):
    """The same from the sample alone."""
    sequence = file.sequence(sample)
    start = sequence.completion_start if mask_prompt else 0
    labels = [IGNORE] * start + sequence.input_ids[start:]
    completion = [sequence.completion_start <= t < sequence.completion_end for t in range(len(labels))]
    return sequence.input_ids, labels, [*labels[1:], IGNORE], completion


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(0, 7), processes=st.integers(1, 4), micro=st.sampled_from([1, 2, 3, 6]), mask=st.booleans())
def test_the_processes_together_hold_the_step_exactly_once(file, layout, step, processes, micro, mask):
    run = steps(file, layout, micro_batch_size=micro, mask_prompt=mask)
    hands = [run.micro_batches(step, rank, processes) for rank in range(processes)]
    assert len({len(hand) for hand in hands}) == 1
    batches = [batch for hand in hands for batch in hand]
    found = [pair for batch in batches for pair in rows_of(batch).items()]
    assert sorted(sample for sample, _ in found) == sorted(run.step_samples(step))
    assert all(values == expected(file, sample, mask) for sample, values in found)
    counts = run.counts(step)
    assert counts.sequences == len(found)
    assert counts.labels == sum(int((batch.labels != IGNORE).sum()) for batch in batches)
    assert counts.targets == sum(int((batch.targets != IGNORE).sum()) for batch in batches)
    padding = run.padding(step, processes)
    filled = [batch for batch in batches if batch.samples]
    assert padding.tokens == sum(batch.tokens for batch in batches)
    assert padding.positions == sum(batch.positions for batch in filled)
    assert padding.share == 1 - padding.tokens / padding.positions
    assert all(batch.input_ids.shape[0] <= micro and batch.input_ids.shape[1] <= 16 for batch in batches)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_carries_nothing(file, layout):
    run = steps(file, layout, micro_batch_size=6)
    (batch,) = run.micro_batches(0)
    empty = batch.sequence < 0
    assert empty.any()
    assert (batch.input_ids[empty] == PAD).all()
    assert (batch.labels[empty] == IGNORE).all()
    assert (batch.targets[empty] == IGNORE).all()
    assert not batch.completion[empty].any()
    if layout == "packed":
        assert batch.attention_mask is None
        first = empty & ~torch.nn.functional.pad(empty, (1, 0))[:, :-1]
        assert (batch.position_ids[first] == 0).all()
    else:
        assert torch.equal(batch.attention_mask.bool(), ~empty)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_processes_than_sequences_get_empty_micro_batches(file, layout):
    run = steps(file, layout, batch_size=2)
    hands = [run.micro_batches(0, rank, 4) for rank in range(4)]
    assert [len(hand) for hand in hands] == [1, 1, 1, 1]
    (empty,) = hands[3]
    assert (empty.samples, empty.tokens) == ((), 0)
    assert (empty.labels == IGNORE).all()
    assert (empty.targets == IGNORE).all()
    assert empty.attention_mask is None or empty.attention_mask.all()


@pytest.mark.parametrize("processes", [1, 3])
def test_the_evaluation_split_is_the_first_part_of_the_mix(file, processes):
    run = steps(file, micro_batch_size=2)
    batches = [batch for rank in range(processes) for batch in run.evaluation_batches(rank, processes)]
    assert sorted(sample for batch in batches for sample in batch.samples) == [0, 1, 2, 3, 4]
    assert run.evaluation_counts().labels == sum(LENGTHS[:5])
    none = steps(file, evaluation_fraction=0.0)
    assert none.evaluation_batches() == []
    assert none.evaluation_counts().sequences == 0


def test_packing_leaves_less_padding_than_grouping_and_grouping_less_than_drawing(file):
    shares = [
        sum((run.padding(step) for step in range(1, 3)), run.padding(0)).share
        for run in (steps(file, layout, batch_size=18, micro_batch_size=6) for layout in LAYOUTS)
    ]
    assert shares == sorted(shares)
    assert shares[0] < shares[1] < shares[2]


def test_model_inputs_and_devices(file):
    (batch,) = steps(file, "grouped", micro_batch_size=6).micro_batches(0)
    assert set(batch.model_inputs) == {"input_ids", "position_ids", "attention_mask", "use_cache"}
    moved = batch.to("meta")
    assert (moved.input_ids.device.type, moved.samples) == ("meta", batch.samples)
