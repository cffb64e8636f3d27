"""Rows and micro-batches: every sequence exactly once, within the limits, fairly dealt."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitdistiller.distillation.layouts import LAYOUTS, Limits, best_fit, deal, even_fit, packed

WIDTH = 20
LENGTHS = st.lists(st.integers(1, WIDTH), max_size=40)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=80, deadline=None)
@given(lengths=LENGTHS, rows=st.integers(1, 6), processes=st.integers(1, 5))
def test_every_sequence_once_and_within_the_limits(layout, lengths, rows, processes):
    laid_out = LAYOUTS[layout](lengths, Limits(rows, WIDTH, processes))
    assert sorted(index for batch in laid_out for row in batch for index in row) == list(range(len(lengths)))
    assert all(0 < len(batch) <= rows for batch in laid_out)
    assert all(sum(lengths[index] for index in row) <= WIDTH for batch in laid_out for row in batch)
    hands = deal(laid_out, processes)
    assert len({len(hand) for hand in hands}) == 1
    assert sorted(batch for hand in hands for batch in hand if batch) == sorted(laid_out)
    if layout == "grouped" and len(lengths) >= processes:
        assert all(any(hand) for hand in hands)


def test_the_reference_layout_keeps_the_order_of_drawing():
    laid_out = LAYOUTS["padded"]([5, 1, 9, 2, 7], Limits(2, WIDTH))
    assert laid_out == [((0,), (1,)), ((2,), (3,)), ((4,),)]


def test_grouping_puts_like_lengths_together():
    laid_out = LAYOUTS["grouped"]([5, 1, 9, 2, 8, 1], Limits(2, WIDTH))
    assert laid_out == [((2,), (4,)), ((0,), (3,)), ((1,), (5,))]


def test_best_fit_takes_the_fullest_row_that_fits():
    assert best_fit([6, 5, 4, 3, 2], 10) == [(0, 2), (1, 3, 4)]
    assert best_fit([7, 6, 3, 3], 10) == [(0, 2), (1, 3)]
    assert best_fit([10, 10], 10) == [(0,), (1,)]


def test_even_rows_or_none():
    assert even_fit([4, 4, 2, 2], 10, 2) == [(0, 2), (1, 3)]
    assert even_fit([6, 6, 6], 10, 2) is None


def test_packing_leaves_rows_of_equal_load_where_they_fit():
    assert packed([10, 9, 6, 5], Limits(8, WIDTH)) == [((0, 3), (1, 2))]
    assert packed([5, 3], Limits(8, WIDTH, 2)) == [((0,),), ((1,),)]
    assert packed([], Limits(8, WIDTH, 2)) == []


def test_dealing_goes_back_and_forth_and_fills_up():
    batches = [((number,),) for number in range(5)]
    assert deal(batches, 2) == [[batches[0], batches[3], batches[4]], [batches[1], batches[2], ()]]
    assert deal([], 3) == [[], [], []]


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, WIDTH), min_size=8, max_size=60), processes=st.integers(1, 4))
def test_processes_get_about_equal_work(lengths, processes):
    for layout in ("packed", "grouped"):
        hands = deal(LAYOUTS[layout](lengths, Limits(2, WIDTH, processes)), processes)
        loads = [sum(lengths[index] for batch in hand for row in batch for index in row) for hand in hands]
        assert max(loads) - min(loads) <= 4 * WIDTH
