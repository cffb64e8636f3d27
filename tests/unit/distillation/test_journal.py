"""The history across attempts, TensorBoard's events, the lines of the log and the totals for the provenance."""

import json
import logging
import math

import pytest

from bitdistiller.distillation import journal as journal_module
from bitdistiller.distillation.journal import Journal
from bitdistiller.distillation.totals import read_curve, read_totals

SHARES = {"student": 0.5, "teacher": 0.25, "quantiser": 0.125, "loss": 0.1, "optimizer": 0.025, "other": 0.0}


@pytest.fixture
def tick(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def write(journal, steps, tick, **more):
    for step in steps:
        tick(2)
        values = {"loss": 4.0 / step, "learning_rate": 1e-3, "gradient_norm": 0.5, "gamma": 0.7}
        journal.record(step, tokens=300, positions=400, seconds=1.5, time_shares=SHARES, **values, **more)


def test_one_line_per_step_with_everything(tmp_path, tick):
    with Journal(tmp_path, 1) as journal:
        write(journal, [1, 2], tick)
        journal.record(2, evaluation_loss=1.75)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "step", "step", "step"]
    first = lines[1]
    assert (first["step"], first["loss"], first["gamma"], first["learning_rate"]) == (1, 4.0, 0.7, 1e-3)
    assert (first["tokens_per_second"], first["padding"], first["device_seconds"]) == (200, 0.25, 2)
    assert first["time_shares"] == SHARES
    assert first["peak_memory"]["host_bytes"] > 1e6
    curve = read_curve(tmp_path / "history.jsonl")
    assert [(record["step"], record["loss"]) for record in curve] == [(1, 4.0), (2, 2.0)]
    assert curve[1]["evaluation_loss"] == 1.75


def test_a_resumed_attempt_repeats_steps_and_adds_its_costs(tmp_path, tick):
    with Journal(tmp_path, 1, processes=2) as journal:
        write(journal, [1, 2, 3], tick)
    with (tmp_path / "history.jsonl").open("a") as handle:
        handle.write('{"event": "step", "st')  # what a kill leaves
    with Journal(tmp_path, 2, done=2, processes=2) as journal:
        write(journal, [3, 4], tick, skipped=False)
        summary = journal.summary()
    assert [record["step"] for record in read_curve(journal.path)] == [1, 2, 3, 4]
    assert [record["attempt"] for record in read_curve(journal.path)] == [1, 1, 2, 2]
    assert (summary["attempts"], summary["steps_taken"], summary["tokens"]) == (2, 5, 1500)
    assert summary["tokens_per_second"] == 200
    assert summary["padding"] == 0.25
    assert summary["device_hours"] == pytest.approx(5 * 2 * 2 / 3600, abs=1e-4)
    assert summary["time_shares"] == pytest.approx(SHARES)
    again = read_totals(journal.path)
    assert again.describe() == journal.totals.describe()


def test_skipped_steps_are_counted_once_and_written_as_null(tmp_path, tick):
    with Journal(tmp_path, 1) as journal:
        journal.record(1, loss=math.nan, gradient_norm=math.inf, skipped=True)
        journal.record(2, loss=math.nan, gradient_norm=math.inf, skipped=True)
    with Journal(tmp_path, 2, done=1) as journal:
        journal.record(2, loss=1.0, gradient_norm=1.0)
        assert journal.summary()["skipped_steps"] == 1
    records = read_curve(journal.path)
    assert (records[0]["loss"], records[0]["gradient_norm"], records[0]["skipped"]) == (None, None, True)


def scalars(path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(path))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path, tick):
    with Journal(tmp_path, 1) as journal:
        write(journal, [1, 2, 3], tick)
    with Journal(tmp_path, 2, done=2) as journal:
        write(journal, [3, 4], tick)
        journal.record(4, evaluation_loss=1.5)
    seen = scalars(tmp_path / "tensorboard")
    assert [step for step, _ in seen["loss/train"]] == [1, 2, 3, 4]
    assert seen["loss/evaluation"] == [(4, 1.5)]
    assert seen["time/teacher"][0] == (1, 0.25)
    assert {"loss/gamma", "optimizer/learning_rate", "speed/tokens_per_second", "memory/host_bytes"} <= set(seen)


def test_a_full_line_now_and_then_and_a_summary_at_the_end(tmp_path, tick, caplog):
    caplog.set_level(logging.INFO)
    with Journal(tmp_path, 1, device="cuda:0") as journal:
        write(journal, range(1, 70), tick)
        journal.record(69, evaluation_loss=1.25)
        journal.log_summary()
    lines = [record.getMessage() for record in caplog.records if record.name == journal_module.logger.name]
    assert len(lines) == 1 + 3
    assert lines[0].startswith("step 60: loss 0.06667, 200 tokens/s, gamma 0.7000, learning rate 0.001")
    assert "padding 25.0%" in lines[0]
    assert "time in student 50%, teacher 25%, quantiser 12%, loss 10%, optimizer 2%" in lines[0]
    assert "GPU-hours" in lines[0]
    assert lines[1].startswith("trained: 69 steps in 1 attempts, 2.07e+04 tokens at 200 tokens/s, padding 25.0 %")
    assert lines[2] == "evaluation loss: 1.25 at step 69 (best)"
    assert journal.note() == "loss 0.05797, evaluation 1.25, 200 tokens/s"


def test_other_processes_write_nothing(tmp_path, tick):
    with Journal(tmp_path, 1, writes=False) as journal:
        write(journal, [1], tick)
        journal.log_summary()
    assert not list(tmp_path.iterdir())


class Full:
    """A file on a full disk."""

    def __init__(self):
        self.closed = False

    def write(self, *_):
        raise OSError(28, "No space left on device")

    flush = write

    def close(self):
        self.closed = True
        self.write()


@pytest.mark.parametrize("error", [None, ValueError])
def test_a_full_disk_hides_no_earlier_error_and_closes_everything(tmp_path, error):
    journal, board = Journal(tmp_path, 1).__enter__(), Full()
    journal._handle.close()
    journal._handle, journal._board = Full(), board
    if error is None:
        with pytest.raises(OSError, match="No space left"):
            journal.__exit__(None, None, None)
    else:
        journal.__exit__(error, error("first"), None)
    assert board.closed
    assert journal._handle is None or error is None
