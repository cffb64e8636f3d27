"""Steps that are skipped, and the message that ends a run."""

import math

import pytest

from bitdistiller.distillation.divergence import Divergence
from bitdistiller.errors import Diverged

NAN, INF = math.nan, math.inf


def test_only_steps_that_are_not_finite_are_skipped_and_counted():
    watch = Divergence(patience=3)
    seen = [(2.0, 1.0), (NAN, 1.0), (2.0, INF), (1.5, 0.5), (-INF, 0.1), (1.4, NAN), (1.3, 0.2)]
    skips = [watch.observe(loss, norm, step) for step, (loss, norm) in enumerate(seen, start=1)]
    assert skips == [False, True, True, False, True, True, False]
    assert (watch.skipped, watch.in_a_row, watch.finite_step, watch.finite_loss) == (4, 0, 7, 1.3)


def test_the_message_says_when_how_often_and_what_to_try():
    watch = Divergence(patience=3)
    watch.observe(2.5, 1.0, 10)
    watch.observe(NAN, 1.0, 11)
    watch.observe(NAN, 1.0, 12)
    with pytest.raises(Diverged) as caught:
        watch.observe(NAN, INF, 13, learning_rate=3e-3)
    message = str(caught.value)
    assert message.startswith("train: diverged at step 13: loss or gradient not finite for 3 steps in a row")
    assert "learning rate 0.003" in message
    assert "the last finite loss was 2.5 at step 10" in message
    assert "lower learning_rate" in message
    assert "\n" not in message
    assert caught.value.exit_code == 1


def test_a_patience_of_one_ends_the_run_at_once():
    with pytest.raises(Diverged, match=r"for 1 step \(loss nan.*no step was finite"):
        Divergence(patience=1).observe(NAN, NAN, 1)


def test_a_checkpoint_goes_on_counting():
    watch = Divergence(patience=3)
    for step, loss in enumerate((2.0, NAN, NAN), start=1):
        watch.observe(loss, 1.0, step)
    later = Divergence(patience=3)
    later.load_state_dict(watch.state_dict())
    assert later == watch
    with pytest.raises(Diverged, match="for 3 steps in a row"):
        later.observe(NAN, 1.0, 4)
