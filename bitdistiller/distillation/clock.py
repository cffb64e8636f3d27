"""Where the time of a step goes: teacher, student, quantiser, loss, optimizer, and the rest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bitdistiller.layers.swap import fake_quantized_linears

OTHER = "other"
SECTIONS = ("teacher", "student", "quantiser", "loss", "optimizer", OTHER)
PENDING = 512
"""Intervals on a GPU that may await their reading before finished ones are collected."""

Stamp = float | torch.cuda.Event
Quantise = Callable[[Tensor, torch.dtype | None], Tensor]


class Clock:
    """
    Seconds per section; of nested sections only the innermost counts, and `other` is what is in none.

    On a CUDA device the borders are events in the stream, so measuring waits for nothing until `seconds` or `shares` is
    read. `clock("student")` is a context manager; `start` and `stop` serve where there is no block, as in hooks.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._on_gpu = torch.device(device).type == "cuda"
        self.reset()

    def reset(self) -> None:
        """Begin a new period, outside of every section."""
        self._seconds = dict.fromkeys(SECTIONS, 0.0)
        self._stack: list[str] = []
        self._pending: deque[tuple[str, Stamp, Stamp]] = deque()
        self._last = self._stamp()

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """Count the block for `section`, without the sections inside it."""
        self.start(section)
        try:
            yield
        finally:
            self.stop(section)

    def start(self, section: str) -> None:
        """Enter a section."""
        self._close()
        self._stack.append(section)

    def stop(self, section: str) -> None:
        """Leave a section, and those inside it that nobody left; nothing when it was not entered."""
        if section in self._stack:
            self._close()
            while self._stack.pop() != section:
                pass

    def seconds(self) -> dict[str, float]:
        """Seconds of each section in this period, `SECTIONS` first; on a GPU this waits for the work given so far."""
        self._close()
        if self._on_gpu:
            self._last.synchronize()
        self._collect()
        return dict(self._seconds)

    def shares(self) -> dict[str, float]:
        """The sections' shares of the period; they add up to 1."""
        seconds = self.seconds()
        total = sum(seconds.values())
        return {name: value / total if total else 0.0 for name, value in seconds.items()}

    def quantiser(self, quantise: Quantise, weight: Tensor, dtype: torch.dtype | None) -> Tensor:
        """
        `quantise(weight, dtype)`, its forward and its backward counted as the section quantiser.

        The backward lies between the gradient of the result and that of an alias of the weight: hooks on both also
        work when a block is recomputed for its gradients or its weights are gathered from shards.
        """
        with self("quantiser"):
            alias = weight.view_as(weight)
            quantised = quantise(alias, dtype)
        if alias.requires_grad and quantised.requires_grad:
            quantised.register_hook(lambda _: self.start("quantiser"))
            alias.register_hook(lambda _: self.stop("quantiser"))
        return quantised

    def _stamp(self) -> Stamp:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _close(self) -> None:
        now = self._stamp()
        self._pending.append((self._stack[-1] if self._stack else OTHER, self._last, now))
        self._last = now
        if not self._on_gpu or len(self._pending) >= PENDING:
            self._collect()

    def _collect(self) -> None:
        while self._pending and (not self._on_gpu or self._pending[0][2].query()):
            section, begin, end = self._pending.popleft()
            elapsed = begin.elapsed_time(end) / 1e3 if self._on_gpu else end - begin
            self._seconds[section] = self._seconds.get(section, 0.0) + elapsed


def time_quantiser(model: nn.Module, clock: Clock | None) -> None:
    """Let every fake-quantised layer of the model report to `clock`; with None they no longer do, at no cost."""
    for _, layer in fake_quantized_linears(model):
        layer.clock = clock
