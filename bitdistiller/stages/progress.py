"""Progress of long work: a bar on a terminal, plain lines with rate and ETA elsewhere, a small file for `status`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from pathlib import Path
from typing import Self

from bitdistiller.stages.files import json_line

logger = logging.getLogger(__name__)

LINE_SECONDS = 30.0
FILE_SECONDS = 2.0


def duration(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Progress:
    """Counts units of work; use as a context manager."""

    def __init__(self, label: str, total: int, done: int = 0, unit: str = "step", file: Path | None = None) -> None:
        self.label, self.total, self.done, self.unit = label, total, done, unit
        self.file = file
        self._first, self._begin = done, time.monotonic()
        self._line_at, self._file_at = self._begin, 0.0
        self._bar = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            text = TextColumn("{task.description}")
            self._bar = Bar(
                text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done)
        elif self._first < self.total:
            start = f", going on after {self.done}" if self.done else ""
            logger.info("%s: %d %ss%s", self.label, self.total, self.unit, start)
        self._write(force=True)
        return self

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` more units; `note` (a loss, say) is shown beside them."""
        self.done += amount
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=f"{self.label} {note}".rstrip())
        elif time.monotonic() - self._line_at >= LINE_SECONDS:
            self._line_at = time.monotonic()
            logger.info("%s", self._line(note))
        self._write()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.done > self._first:
            logger.info("%s", self._line(""))
        self._write(force=True)

    @property
    def rate(self) -> float:
        """Units per second in this attempt."""
        return (self.done - self._first) / max(time.monotonic() - self._begin, 1e-9)

    def _line(self, note: str) -> str:
        rate = self.rate
        ahead = f", {duration((self.total - self.done) / rate)} left" if rate and self.done < self.total else ""
        note = f" ({note})" if note else ""
        return f"{self.label}: {self.done}/{self.total} {self.unit}s, {rate:.3g} {self.unit}s/s{ahead}{note}"

    def _write(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.file is None or (not force and now - self._file_at < FILE_SECONDS):
            return
        self._file_at = now
        record = {"label": self.label, "unit": self.unit, "done": self.done, "total": self.total}
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        with contextlib.suppress(OSError):  # a display that cannot be written, on a full disk, stops no work
            temporary.write_text(json_line({**record, "rate": self.rate, "time": time.time()}))
            os.replace(temporary, self.file)
