"""What a user sees of a training: a history across attempts, TensorBoard events, lines in the log, a summary."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from pathlib import Path
from typing import Any, Self

from bitdistiller.distillation.totals import START, STEP, read_totals
from bitdistiller.stages.files import append_json_line, json_line, sync
from bitdistiller.stages.provenance import peak_memory

logger = logging.getLogger(__name__)

HISTORY = "history.jsonl"
EVENTS = "tensorboard"
LINE_SECONDS = 120.0
"""Seconds between two full lines in the log; the progress line comes more often."""
NOTE = {"loss": "loss {:.4g}", "evaluation_loss": "evaluation {:.4g}", "tokens_per_second": "{:.0f} tokens/s"}
LINE = {
    **NOTE,
    "gamma": "gamma {:.4f}",
    "learning_rate": "learning rate {:.3g}",
    "gradient_norm": "gradient norm {:.3g}",
    "padding": "padding {:.1%}",
}
TAGS = {
    "loss": "loss/train",
    "evaluation_loss": "loss/evaluation",
    "gamma": "loss/gamma",
    "learning_rate": "optimizer/learning_rate",
    "gradient_norm": "optimizer/gradient_norm",
    "tokens_per_second": "speed/tokens_per_second",
    "padding": "speed/padding",
}


class Journal:
    """
    Keeps the record of one attempt at a training; a context manager.

    work: the directory of `history.jsonl` and `tensorboard/`, the same for every attempt; attempt: its number; done:
    steps in the checkpoint that this attempt goes on from; processes, device: what the hours are counted in; writes:
    False in all processes but the first, where nothing is written and nothing logged; begin: when the attempt began
    (`time.monotonic()`).
    """

    def __init__(
        self,
        work: Path,
        attempt: int,
        *,
        done: int = 0,
        processes: int = 1,
        device: str = "cpu",
        writes: bool = True,
        begin: float | None = None,
    ) -> None:
        self.path, self.events = work / HISTORY, work / EVENTS
        self.attempt, self.done, self.processes, self.writes = attempt, done, processes, writes
        self.device = device.partition(":")[0]
        self.totals = read_totals(self.path)
        self.latest: dict[str, Any] = {}
        self._begin = time.monotonic() if begin is None else begin
        self._line_at = time.monotonic()
        self._handle = self._board = None

    def __enter__(self) -> Self:
        if self.writes:
            from torch.utils.tensorboard import SummaryWriter

            line = {"event": START, "attempt": self.attempt, "done": self.done, "time": time.time()}
            line |= {"processes": self.processes, "device": self.device}
            append_json_line(self.path, line)
            self.totals.add(line)
            self._handle = self.path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(self.events), purge_step=self.done + 1 if self.done else None)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._handle is None:
            return
        with contextlib.suppress(*([OSError] if kind else [])), contextlib.ExitStack() as closing:
            closing.callback(self._board.close)
            closing.callback(self._handle.close)
            self.sync()
        self._handle = self._board = None

    def record(
        self,
        step: int,
        *,
        tokens: int = 0,
        positions: int = 0,
        seconds: float | None = None,
        time_shares: dict[str, float] | None = None,
        **values: Any,
    ) -> None:
        """
        Write down one optimizer step (from 1), or an evaluation after it.

        tokens, positions: real tokens, and tokens with padding, over all processes; seconds: the step's wall time;
        values: loss, evaluation_loss, gamma, learning_rate, gradient_norm, skipped, or any other number. Numbers that
        are not finite become null.
        """
        if self._handle is None:
            return
        line: dict[str, Any] = {"event": STEP, "attempt": self.attempt, "step": step, **values}
        if tokens and positions:
            line |= {"tokens": tokens, "positions": positions, "padding": 1 - tokens / positions}
        if seconds:
            line |= {"seconds": seconds, "tokens_per_second": tokens / seconds, "time_shares": time_shares or {}}
        spent = (time.monotonic() - self._begin) * self.processes
        line |= {"peak_memory": peak_memory(), "device_seconds": spent, "time": time.time()}
        self._handle.write(json_line({name: _finite(value) for name, value in line.items()}))
        self._handle.flush()
        self.totals.add(line)
        self.latest |= {name: value for name, value in line.items() if name != "event"}
        self._plot(line)
        if time.monotonic() - self._line_at >= LINE_SECONDS:
            self._line_at = time.monotonic()
            logger.info("%s", self.line())

    def sync(self) -> None:
        """Make durable what was recorded; worth calling with every checkpoint."""
        if self._handle is not None:
            self._handle.flush()
            sync(self.path)
            self._board.flush()

    def note(self) -> str:
        """The few numbers that stand beside the progress: loss, evaluation loss, tokens per second."""
        return ", ".join(self._known(NOTE))

    def line(self) -> str:
        """Everything known about the latest step in one line."""
        parts = [*self._known(LINE), _shares(self.latest.get("time_shares", {})), self._costs()]
        return f"step {self.latest.get('step', self.done)}: {', '.join(part for part in parts if part)}"

    def summary(self) -> dict[str, Any]:
        """Speed, time shares, peak memory, device-hours and skipped steps over all attempts, for the provenance."""
        return {**self.totals.describe(), "device": self.device, "processes": self.processes}

    def log_summary(self) -> None:
        """Say in the log, in a few lines, how the training went."""
        if not self.writes:
            return
        sums = self.totals
        logger.info(
            "trained: %d steps in %d attempts, %.4g tokens at %.0f tokens/s, padding %.1f %%, %d steps skipped",
            *(sums.steps, sums.attempts, sums.tokens, sums.tokens_per_second, 100 * sums.padding, len(sums.skipped)),
        )
        if sums.evaluations:
            best = min(sums.evaluations, key=lambda step: (sums.evaluations[step], step))
            logger.info("evaluation loss: %.4g at step %d (best)", sums.evaluations[best], best)
        logger.info("%s; %s", _shares(sums.time_shares) or "no step was timed", self._costs())

    def _known(self, texts: dict[str, str]) -> list[str]:
        return [text.format(self.latest[name]) for name, text in texts.items() if self.latest.get(name) is not None]

    def _costs(self) -> str:
        peaks = self.totals.peak_bytes.items()
        memory = " + ".join(f"{size / 1e9:.2f} GB {name.removesuffix('_bytes')}" for name, size in peaks)
        kind = "GPU-hours" if self.device == "cuda" else f"{self.device.upper()}-process-hours"
        return f"peak memory {memory or 'unknown'}, {self.totals.device_seconds / 3600:.3g} {kind}"

    def _plot(self, line: dict[str, Any]) -> None:
        scalars = {tag: line[name] for name, tag in TAGS.items() if line.get(name) is not None}
        scalars |= {f"time/{name}": share for name, share in line.get("time_shares", {}).items()}
        scalars |= {f"memory/{name}": value for name, value in line["peak_memory"].items()}
        for tag, value in scalars.items():
            self._board.add_scalar(tag, value, line["step"])


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shares(shares: dict[str, float]) -> str:
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} {share:.0%}" for name, share in ranked if share >= 0.005)
    return f"time in {text}" if text else ""
