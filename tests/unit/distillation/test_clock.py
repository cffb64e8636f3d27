"""Self time of nested sections, and the quantiser's forward and backward inside the student's."""

import pytest
import torch
from helpers.tiny import make_model

from bitdistiller.distillation import clock as clock_module
from bitdistiller.distillation.clock import SECTIONS, Clock, time_quantiser
from bitdistiller.formats import get_format
from bitdistiller.layers import quantize_linears


@pytest.fixture
def tick(monkeypatch):
    """A time that stands still until `tick` moves it on."""
    now = [100.0]
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_only_the_innermost_section_counts(tick):
    clock = Clock()
    tick(1)
    with clock("student"):
        tick(2)
        with clock("quantiser"):
            tick(4)
        tick(8)
    with clock("loss"):
        tick(16)
    tick(32)
    seconds = clock.seconds()
    assert tuple(seconds) == SECTIONS
    assert seconds == {"teacher": 0, "student": 10, "quantiser": 4, "loss": 16, "optimizer": 0, "other": 33}
    shares = clock.shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["loss"] == pytest.approx(16 / 63)
    clock.reset()
    assert set(clock.shares().values()) == {0.0}


def test_a_section_left_by_an_error_takes_those_inside_with_it(tick):
    clock = Clock()

    def fail():
        with clock("student"):
            tick(1)
            clock.start("quantiser")
            tick(2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    tick(4)
    clock.stop("quantiser")
    seconds = clock.seconds()
    assert (seconds["student"], seconds["quantiser"], seconds["other"]) == (1, 2, 4)


def test_sections_of_other_names_are_listed_last(tick):
    clock = Clock()
    with clock("evaluation"):
        tick(3)
    assert list(clock.shares()) == [*SECTIONS, "evaluation"]


class Recorder(Clock):
    """Also keeps the order of the borders."""

    def __init__(self):
        super().__init__()
        self.borders = []

    def start(self, section):
        self.borders.append(f"+{section}")
        super().start(section)

    def stop(self, section):
        self.borders.append(f"-{section}")
        super().stop(section)


def student(checkpointing=False):
    model = make_model()
    layers = quantize_linears(model, get_format("int2"), 32)
    if checkpointing:
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model, len(layers)


def gradients(model):
    ids = torch.arange(24).view(2, 12)
    model.zero_grad()
    loss = model(input_ids=ids, use_cache=False).logits.float().pow(2).mean()
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


def test_the_quantiser_is_timed_forward_and_backward_and_changes_no_value():
    model, layers = student()
    plain = gradients(model)
    clock = Recorder()
    time_quantiser(model, clock)
    with clock("student"):
        timed = gradients(model)
    assert clock.borders == ["+student", *["+quantiser", "-quantiser"] * (2 * layers), "-student"]
    assert timed[0] == plain[0]
    assert all(torch.equal(a, b) for a, b in zip(timed[1], plain[1], strict=True))
    seconds = clock.seconds()
    assert seconds["quantiser"] > 0
    assert seconds["student"] > 0


def test_recomputed_blocks_are_counted_too():
    model, layers = student(checkpointing=True)
    clock = Recorder()
    time_quantiser(model, clock)
    with clock("student"):
        gradients(model)
    starts = clock.borders.count("+quantiser")
    assert starts == clock.borders.count("-quantiser")
    assert starts == 3 * layers
    assert clock.borders[1:-1] == ["+quantiser", "-quantiser"] * starts


def test_nothing_is_hooked_without_gradients_or_without_a_clock():
    model, layers = student()
    clock = Recorder()
    time_quantiser(model, clock)
    with torch.no_grad():
        model(input_ids=torch.arange(6).view(1, 6))
    assert clock.borders == ["+quantiser", "-quantiser"] * layers
    time_quantiser(model, None)
    gradients(model)
    assert len(clock.borders) == 2 * layers
