"""The attempts log, and the gate that stops endless failure."""

import pytest

from bitdistiller.errors import DeadlineReached, GateClosed, InputError
from bitdistiller.stages.attempts import Attempts


@pytest.fixture
def attempt(toy):
    """`attempt(error, commits=0)`: one attempt that commits so often and then fails."""

    def run(error, commits=0):
        with pytest.raises(type(error)):
            fail(error, commits)

    def fail(error, commits):
        with toy() as stage:
            for _ in range(commits):
                stage.commit()
            raise error

    return run


@pytest.fixture
def is_open(toy):
    """True when the next attempt may start (and it finishes then)."""

    def ask():
        try:
            with toy() as stage:
                stage.output_file("result").write_text("1")
                stage.finish()
        except GateClosed:
            return False
        return True

    return ask


def test_the_same_exception_twice_without_progress_closes_the_gate(attempt, toy, work):
    attempt(RuntimeError("CUDA out of memory"))
    attempt(RuntimeError("CUDA out of memory"))
    with pytest.raises(GateClosed, match=f"CUDA out of memory.*bitdistiller unlock {work}") as error, toy():
        pass
    assert error.value.exit_code == 3


def test_a_refused_start_is_no_attempt(attempt, is_open, work):
    attempt(RuntimeError("x"))
    attempt(RuntimeError("x"))
    assert not is_open()
    assert not is_open()
    assert len(Attempts(work).history()) == 2


def test_progress_in_between_keeps_the_gate_open(attempt, is_open):
    attempt(RuntimeError("x"))
    attempt(RuntimeError("x"), commits=1)
    assert is_open()


def test_progress_before_both_does_not_help(attempt, is_open):
    attempt(RuntimeError("x"), commits=3)
    attempt(RuntimeError("x"))
    attempt(RuntimeError("x"))
    assert not is_open()


def test_different_exceptions_keep_the_gate_open(attempt, is_open):
    attempt(RuntimeError("x"))
    attempt(RuntimeError("y"))
    attempt(KeyError("x"))
    assert is_open()


def test_bad_input_does_not_count(attempt, is_open, work):
    for _ in range(3):
        attempt(InputError("group size"))
    assert [record["outcome"] for record in Attempts(work).history()] == ["input"] * 3
    assert is_open()


def test_interruptions_do_not_count(attempt, is_open):
    for _ in range(6):
        attempt(KeyboardInterrupt())
    assert is_open()


def test_five_silent_deaths_close_the_gate(work):
    attempts = Attempts(work)
    for number in range(1, 6):
        assert attempts.start() == number
    with pytest.raises(GateClosed, match="killed or stopped without any progress"):
        attempts.start()


def test_a_silent_death_with_progress_counts_anew(work):
    attempts = Attempts(work)
    for _ in range(4):
        attempts.start()
    attempts.commit()
    for _ in range(5):
        attempts.start()
    with pytest.raises(GateClosed):
        attempts.start()


def test_deadlines_with_progress_go_on_for_ever(attempt, is_open):
    for _ in range(7):
        attempt(DeadlineReached("time"), commits=1)
    assert is_open()


def test_five_deadlines_without_any_progress_close_the_gate(attempt, toy):
    for _ in range(5):
        attempt(DeadlineReached("time"))
    with pytest.raises(GateClosed, match="a time limit shorter than one step"), toy():
        pass


def test_unlock_opens_the_gate(attempt, is_open, work):
    attempt(RuntimeError("x"))
    attempt(RuntimeError("x"))
    assert not is_open()
    Attempts(work).clear()
    attempt(RuntimeError("x"))
    assert is_open()


def test_a_line_cut_by_a_kill_is_skipped(work):
    attempts = Attempts(work)
    attempts.start()
    attempts.end("error", RuntimeError("x"))
    with attempts.path.open("ab") as handle:
        handle.write(b'{"event": "sta')
    assert len(attempts.history()) == 1
    attempts.start()
    attempts.end("error", RuntimeError("x"))
    assert [record["exception"] for record in attempts.history()] == ["RuntimeError: x"] * 2


def test_the_log_says_how_each_attempt_ended(attempt, is_open, work):
    attempt(RuntimeError("x"), commits=2)
    attempt(DeadlineReached("time"), commits=1)
    assert is_open()
    history = Attempts(work).history()
    assert [record["outcome"] for record in history] == ["error", "deadline", "finished"]
    assert [(record["commits_before"], record["commits_after"]) for record in history] == [(0, 2), (2, 3), (3, 3)]
