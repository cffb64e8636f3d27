"""Plain lines with rate and time left where there is no terminal, and a small file for `status`."""

import json
import logging
import re

import pytest

from bitdistiller.stages import progress
from bitdistiller.stages.progress import Progress, duration


@pytest.fixture
def lines(caplog, monkeypatch):
    """The plain lines so far; every step prints one."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO)
    return lambda: caplog.messages


def test_lines_have_count_rate_and_time_left(lines):
    with Progress("train", 10, unit="step") as bar:
        bar.advance(2, "loss 1.25")
    first, second, last = lines()
    assert first == "train: 10 steps"
    assert re.fullmatch(r"train: 2/10 steps, [\d.e+]+ steps/s, \d+:\d\d left \(loss 1\.25\)", second)
    assert last.startswith("train: 2/10 steps")


def test_the_last_line_has_no_time_left(lines):
    with Progress("shard", 2, unit="prompt") as bar:
        bar.advance(2)
    assert re.fullmatch(r"shard: 2/2 prompts, [\d.e+]+ prompts/s", lines()[-1])


def test_a_resumed_stage_says_so_and_its_rate_is_that_of_this_attempt(lines, monkeypatch):
    clock = iter([0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock, 2.0))
    with Progress("train", 100, done=90) as bar:
        bar.advance(4)
    assert lines()[0] == "train: 100 steps, going on after 90"
    assert lines()[-1] == "train: 94/100 steps, 2 steps/s, 0:03 left"


def test_lines_are_periodic(lines, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 30.0)
    with Progress("train", 1000) as bar:
        for _ in range(1000):
            bar.advance()
    assert len(lines()) == 2


def test_the_file_has_the_newest_count(tmp_path, lines):
    with Progress("train", 3, file=tmp_path / "progress.json") as bar:
        bar.advance(3)
    record = json.loads((tmp_path / "progress.json").read_text())
    assert (record["label"], record["unit"], record["done"], record["total"]) == ("train", "step", 3, 3)
    assert record["rate"] > 0


def test_a_terminal_gets_a_bar(monkeypatch, capsys, caplog):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    caplog.set_level(logging.INFO)
    with Progress("train", 3) as bar:
        bar.advance(3, "loss 1")
    assert "3/3" in capsys.readouterr().err
    assert not caplog.messages


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3723, "1:02:03")])
def test_duration(seconds, text):
    assert duration(seconds) == text
