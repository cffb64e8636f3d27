"""The training loop: steps, evaluations, checkpoints, and when to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bitdistiller.config import Training
from bitdistiller.distillation.batches import Batch
from bitdistiller.distillation.chunked import Term
from bitdistiller.distillation.clock import Clock
from bitdistiller.distillation.divergence import Divergence
from bitdistiller.distillation.engines import Engine
from bitdistiller.distillation.hidden_states import StatesTerm, token_mean
from bitdistiller.distillation.losses import Weighted
from bitdistiller.distillation.losses.base import IGNORE, StepCounts
from bitdistiller.distillation.schedules import schedule_factor
from bitdistiller.distillation.steps import Steps
from bitdistiller.distillation.world import World

Event = dict[str, Any]
Watch = Callable[..., None]
"""Called with `step` and whatever there is to say about it: see Journal.record."""


@dataclass
class Objective:
    """The weighted sum of losses that a recipe asks for, of micro-batches that know what the whole step counts."""

    losses: list[Weighted]
    gamma: float
    training: Training
    teacher: Any
    """A Teacher; a LiveTeacher where hidden states are compared, None where nothing is."""
    clock: Clock

    def terms(self, batch: Batch, counts: StepCounts) -> tuple[Tensor, Any, list[Term | StatesTerm]]:
        """The positions that count, (rows, width) bool, the teacher's signal at them, and the terms of the sum."""
        keep = (batch.labels != IGNORE) | (batch.targets != IGNORE)
        coefficient, signal, terms = self.training.hidden_states, None, []
        if self.teacher is not None:
            with self.clock("teacher"):
                if coefficient:
                    signal, states = self.teacher.signal_and_states(batch, keep)
                    terms.append(StatesTerm(states, token_mean(batch.labels, keep, counts), coefficient))
                else:
                    signal = self.teacher.signal(batch, keep)
        label = self._label_log_probability(batch, keep, signal)
        for loss, coefficient in self.losses:
            weights = loss.weights(batch, counts, self.training.reduction, label)
            terms.append(Term(loss, coefficient, weights[keep], self.gamma))
        return keep, signal, terms

    def _label_log_probability(self, batch: Batch, keep: Tensor, signal: Any) -> Tensor | None:
        if signal is None or not any(loss.needs_label_probability for loss, _ in self.losses):
            return None
        targets = batch.targets[keep]
        found = signal.label_log_probability(targets.clamp(min=0))
        return torch.zeros(keep.shape, dtype=found.dtype, device=keep.device).masked_scatter(keep, found)


@dataclass
class Progressed:
    """What a checkpoint keeps beside weights and optimizer state."""

    step: int = 0
    """Optimizer steps done."""
    history: list[Event] = field(default_factory=list)
    divergence: dict[str, Any] = field(default_factory=dict)


class Loop:
    """Runs the steps of a recipe on an engine; every process runs the same one."""

    def __init__(
        self, training: Training, engine: Engine, steps: Steps, objective: Objective, world: World, clock: Clock
    ) -> None:
        self.training, self.engine, self.steps = training, engine, steps
        self.objective, self.world, self.clock = objective, world, clock
        self.state = Progressed()
        # An engine that cannot take its gradients back cannot skip a step either.
        self.divergence = Divergence(training.divergence_patience if engine.can_skip else 1)

    def run(
        self,
        stop: Callable[[], bool],
        save: Callable[[Progressed], None],
        watch: Watch,
    ) -> bool:
        """
        Train to the last step; True when `stop` ended it early, after a save.

        `stop` is asked after every step, `save` gets the state whenever it is to become durable, `watch` every event.
        While steps are being skipped nothing is evaluated or saved, so that a run that diverges goes on before that.
        """
        while self.state.step < self.steps.total:
            watch(**self.timed_step())
            done = self.state.step
            last, due = done == self.steps.total, self.world.any(stop())
            regular = done % self.training.evaluate_every == 0 and not self.divergence.in_a_row
            if self.steps.held_out and (regular or last):
                watch(**self._evaluation())
            if regular or last or due:
                save(self._durable())
            if due and not last:
                return True
        return False

    def resume(self, state: Progressed) -> None:
        """Go on from what a checkpoint kept."""
        self.state = state
        self.divergence.load_state_dict(state.divergence)

    def _durable(self) -> Progressed:
        self.state.divergence = self.divergence.state_dict()
        return self.state

    def timed_step(self) -> Event:
        self.clock.reset()
        begin, index = time.monotonic(), self.state.step
        event = self._step(index)
        costs = {"seconds": time.monotonic() - begin, "time_shares": self.clock.shares()}
        return event | costs | {"positions": self.steps.padding(index, self.world.size).positions}

    def _step(self, index: int) -> Event:
        counts, world = self.steps.counts(index), self.world
        self.engine.module.train()
        batches = self.steps.micro_batches(index, world.rank, world.size)
        total = torch.zeros((), device=world.device)
        for number, batch in enumerate(batches):
            total += self._forward_backward(batch.to(world.device), counts, number == len(batches) - 1)
        (loss,) = world.sum(total.item())
        factor = schedule_factor(self.training.schedule, self.training.warmup, self.steps.total, index)
        rate = factor * self.training.learning_rate
        with self.clock("optimizer"):
            norm, skipped = self._update(loss, factor, rate, index + 1)
        self.state.step = index + 1
        event = self._event(loss=loss, learning_rate=rate, gradient_norm=norm, tokens=self.steps.tokens(index))
        return event | ({"skipped": True} if skipped else {})

    def _forward_backward(self, batch: Batch, counts: StepCounts, last: bool) -> Tensor:
        keep, signal, terms = self.objective.terms(batch, counts)
        with self.clock("student"):
            self.engine.begin(last)
            loss = self.engine.module(batch, keep, signal, terms)
            self.engine.backward(loss)
        return loss.detach()

    def _update(self, loss: float, factor: float, rate: float, step: int) -> tuple[float, bool]:
        bad = not math.isfinite(loss)
        if bad and not self.engine.can_skip:
            self.divergence.observe(loss, math.nan, step, rate)
        norm = self.engine.step(factor, bad)
        return norm, self.divergence.observe(loss, norm, step, rate)

    @torch.no_grad()
    def _evaluation(self) -> Event:
        self.engine.module.eval()
        total, counts = 0.0, self.steps.evaluation_counts()
        for batch in self.steps.evaluation_batches(self.world.rank, self.world.size):
            moved = batch.to(self.world.device)
            keep, signal, terms = self.objective.terms(moved, counts)
            total += self.engine.module(moved, keep, signal, terms).item()
        return self._event(evaluation_loss=self.world.sum(total)[0])

    def _event(self, **values: float) -> Event:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        event = {"step": self.state.step, "epoch": self.state.step / self.steps.per_epoch} | finite
        self.state.history.append(event)
        return event
