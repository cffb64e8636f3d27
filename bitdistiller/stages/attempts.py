"""The attempts log and the progress gate that stops endless failure."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from bitdistiller.errors import GateClosed
from bitdistiller.stages.files import append_json_line, read_json, read_json_lines, write_json
from bitdistiller.stages.lock import job_id

SAME_EXCEPTION_LIMIT = 2
SILENT_DEATH_LIMIT = 5


class Attempts:
    """
    `attempts.jsonl` (one start and one end line per attempt) and `commits.json` (how much durable progress there is).

    An attempt made progress when the number of commits at its end differs from that at its start.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.path = work / "attempts.jsonl"
        self.commits_path = work / "commits.json"

    @property
    def commits(self) -> int:
        """Number of durable steps of progress so far, over all attempts."""
        return read_json(self.commits_path)["commits"] if self.commits_path.exists() else 0

    def commit(self) -> None:
        """Record that progress has just become durable."""
        write_json(self.commits_path, {"commits": self.commits + 1, "time": time.time()})

    def history(self) -> list[dict[str, Any]]:
        """One record per attempt, oldest first: its start joined with its end (`outcome` is absent after a kill)."""
        records: list[dict[str, Any]] = []
        for line in read_json_lines(self.path, torn=True) if self.path.exists() else ():
            if line["event"] == "start":
                records.append(line)
            elif line["event"] == "clear":
                records.clear()
            elif records:
                records[-1] = {**records[-1], **line}
        return records

    def start(self) -> int:
        """Open an attempt and return its number (from 1); raises GateClosed when earlier ones failed in vain."""
        history = self.history()
        self._check_gate(history)
        record = {"event": "start", "time": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        append_json_line(self.path, {**record, "job": job_id(), "commits_before": self.commits})
        return len(history) + 1

    def end(self, outcome: str, exception: BaseException | None = None) -> None:
        """
        Close the attempt: outcome `finished`, `deadline`, `input`, `disk`, `error` or `interrupted`.

        Wrong input and a full disk are told at once and end with their cause, so that the gate does not count them.
        """
        message = f"{type(exception).__name__}: {exception}"[:2000] if exception else None
        record = {"event": "end", "outcome": outcome, "exception": message, "ended": time.time()}
        append_json_line(self.path, {**record, "commits_after": self.commits})

    def clear(self) -> None:
        """Forget the failures counted so far, so that the gate opens."""
        append_json_line(self.path, {"event": "clear", "time": time.time()})

    def _check_gate(self, history: list[dict[str, Any]]) -> None:
        befores = [record["commits_before"] for record in history] + [self.commits]
        tail = self._vain_tail(history, befores)
        failures = [r for r in tail if r.get("outcome") == "error"][-SAME_EXCEPTION_LIMIT:]
        same = len({r["exception"] for r in failures}) == 1 and len(failures) == SAME_EXCEPTION_LIMIT
        if same and tail[-SAME_EXCEPTION_LIMIT:] == failures:
            raise GateClosed(
                f"{self.work}: the last {SAME_EXCEPTION_LIMIT} attempts ended without progress in the same error "
                f"({failures[-1]['exception']}); mend it, then run: bitdistiller unlock {self.work}"
            )
        silent = tail[-SILENT_DEATH_LIMIT:]
        if len(silent) == SILENT_DEATH_LIMIT and all(r.get("outcome", "deadline") == "deadline" for r in silent):
            raise GateClosed(
                f"{self.work}: the last {SILENT_DEATH_LIMIT} attempts were killed or stopped without any progress "
                "(out of memory, or a time limit shorter than one step?); give more of it, then run: "
                f"bitdistiller unlock {self.work}"
            )

    @staticmethod
    def _vain_tail(history: list[dict[str, Any]], befores: list[int]) -> list[dict[str, Any]]:
        tail: list[dict[str, Any]] = []
        for index in range(len(history) - 1, -1, -1):
            if befores[index] != befores[index + 1]:
                break
            tail.insert(0, history[index])
        return tail
