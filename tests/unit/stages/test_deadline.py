"""A stage stops by itself, with its progress saved, before it is killed."""

import signal
import time

import pytest
from helpers.processes import TOY_STAGE, finish, run, start, wait_for

from bitdistiller.errors import DeadlineReached
from bitdistiller.stages import deadline
from bitdistiller.stages.deadline import Deadline, parse_time_left, scheduler_minutes


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(deadline, "time", clock)
    return clock


def test_without_a_budget_it_is_never_due(clock):
    limit = Deadline(None)
    clock.now += 1e9
    assert limit.remaining == float("inf")
    limit.check()


def test_errors_after_a_signal_are_its_doing(clock):
    limit = Deadline(None)
    with pytest.raises(ZeroDivisionError), limit.excusing():
        raise ZeroDivisionError
    limit._on_signal(signal.SIGTERM, None)
    with pytest.raises(DeadlineReached, match="asked to stop by SIGTERM"), limit.excusing():
        raise ZeroDivisionError


def test_it_is_due_when_the_longest_step_does_not_fit_any_more(clock):
    limit = Deadline(10.0)
    limit.check()
    for _ in range(4):
        clock.now += 60.0
        limit.check()
    clock.now += 200.0  # 160 s are left: less than this step took, and the margin
    with pytest.raises(DeadlineReached, match="the time budget is nearly used; progress is saved") as error:
        limit.check()
    assert error.value.exit_code == 75


def test_a_given_step_length_counts(clock):
    limit = Deadline(10.0)
    limit.check(longest_step_seconds=500.0)
    assert Deadline(10.0).is_due(longest_step_seconds=600.0)


def test_setting_up_is_no_step(clock):
    limit = Deadline(1.0)
    clock.now += 35.0  # loading the model
    limit.check()
    clock.now += 2.0
    limit.check()


def test_a_short_budget_has_a_short_margin(clock):
    limit = Deadline(0.1)
    clock.now += 5.0
    limit.check()
    clock.now += 0.6
    assert limit.is_due()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_an_expired_budget(number):
    limit = Deadline(None)
    before = signal.getsignal(number)
    with limit.listening():
        limit.check()
        signal.raise_signal(number)
        assert limit.remaining == 0.0
        with pytest.raises(DeadlineReached, match=f"asked to stop by {number.name}"):
            limit.check()
    assert signal.getsignal(number) is before


def test_sigterm_ends_a_stage_with_75_and_its_progress_saved(tmp_path):
    process = start(TOY_STAGE, tmp_path / "out", "--steps", "20", "--sleep", "0.1")
    steps = tmp_path / "out.work" / "state"
    wait_for(lambda: len(list(steps.glob("step-*"))) >= 2, process)
    process.terminate()
    assert finish(process)[0] == 75
    saved = len(list(steps.glob("step-*")))
    assert 2 <= saved < 20
    assert not (tmp_path / "out").exists()
    code, output = run(TOY_STAGE, tmp_path / "out", "--steps", "20")
    assert code == 0
    assert f"count: 20 steps, going on after {saved}" in output
    assert (tmp_path / "out" / "total.txt").read_text() == "20"


def test_a_time_budget_ends_a_stage_with_75(tmp_path):
    begin = time.monotonic()
    code, _ = run(TOY_STAGE, tmp_path / "out", "--steps", "100", "--sleep", "0.2", "--time-budget", "0.03")
    assert code == 75
    assert time.monotonic() - begin < 10.0
    assert 2 <= len(list((tmp_path / "out.work" / "state").glob("step-*"))) < 20


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("10:30", 10.5), ("2:00:00", 120.0), ("1-00:00:30", 1440.5), ("3-02:05:00", 4445.0), ("0:07", 7 / 60)],
)
def test_parse_time_left(text, minutes):
    assert parse_time_left(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["", "UNLIMITED", "INVALID", "NOT_SET", "12", "-"])
def test_parse_time_left_refuses_other_texts(text):
    with pytest.raises(ValueError):  # noqa: PT011 (any text)
        parse_time_left(text)


def test_a_walltime_binds_only_inside_a_job(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert scheduler_minutes(30.0) is None
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scheduler_minutes(30.0) == 30.0
    squeue = tmp_path / "squeue"
    for answer, minutes in (("12:30", 12.5), ("UNLIMITED", 30.0)):
        squeue.write_text(f'#!/bin/sh\n[ "$3" = 4711 ] && echo {answer}\n')
        squeue.chmod(0o755)
        assert scheduler_minutes(30.0) == minutes
