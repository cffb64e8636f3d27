"""Which sequences an optimizer step holds, how they are laid out, and what each process gets of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitdistiller.config import Training
from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation.batches import Batch, collate, count
from bitdistiller.distillation.layouts import LAYOUTS, Layout, Limits, MicroBatch, deal
from bitdistiller.distillation.losses.base import StepCounts
from bitdistiller.errors import InputError


@dataclass(frozen=True)
class Padding:
    """Tokens of a step and the positions they are laid out in, over all processes."""

    tokens: int
    positions: int

    @property
    def share(self) -> float:
        """Share of the positions that hold no token."""
        return 1 - self.tokens / self.positions if self.positions else 0.0

    def __add__(self, other: Padding) -> Padding:
        return Padding(self.tokens + other.tokens, self.positions + other.positions)


def order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """
    The order of an epoch, a permutation (samples,) of int64.

    `RandomState` is the generator whose stream NumPy promises never to change, so a run goes on under another version.
    """
    return np.random.RandomState([seed % 2**32, epoch]).permutation(samples).astype(np.int64)


def split(samples: int, fraction: float) -> int:
    """
    How many first samples of the mix are held out for evaluation (docs/method.md 4).

    Raises InputError where nothing is left to train on.
    """
    held_out = round(samples * fraction)
    if held_out == samples:
        raise InputError(f"train: the mix has only {samples} samples; nothing is left beside the evaluation split")
    return held_out


def check_samples(file: TokenFile, training: Training) -> int:
    """
    How many samples are held out of a token file that the training can take.

    Raises InputError where nothing is left to train on, or where sequences are longer than a row.
    """
    longest = int(file.lengths.max(initial=0))
    if longest > training.max_length:
        raise InputError(
            f"train: {file.directory} holds a sequence of {longest} tokens, more than max_length "
            f"({training.max_length}); tokenize the mix with this max_length"
        )
    return split(len(file), training.evaluation_fraction)


class Steps:
    """
    The optimizer steps of a run, numbered from 0: every step is a function of its number alone.

    A step is a set of sequences. The layout and the number of processes decide how they are computed, not what they
    are, so that a run may go on with another number of processes.
    """

    def __init__(self, file: TokenFile, training: Training, layout: Layout) -> None:
        """Raises InputError where nothing is left to train on, or where sequences are longer than a row."""
        self.file, self.training, self.layout = file, training, layout
        self.held_out = check_samples(file, training)
        self.samples = len(file) - self.held_out
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def per_epoch(self) -> int:
        """Steps of one epoch; the last may be smaller than the others."""
        return math.ceil(self.samples / self.training.batch_size)

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.training.max_steps or math.ceil(self.training.epochs * self.per_epoch)

    def step_samples(self, step: int) -> list[int]:
        """Indices in the token file of the step's sequences, in the order of drawing."""
        epoch, within = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, order(self.samples, self.training.seed, epoch)
        begin = within * self.training.batch_size
        return (self._order[1][begin : begin + self.training.batch_size] + self.held_out).tolist()

    @property
    def training_samples(self) -> list[int]:
        """Indices in the token file of everything that is not held out, in the order of the mix."""
        return list(range(self.held_out, len(self.file)))

    def batches(self, samples: list[int], rank: int = 0, processes: int = 1) -> list[Batch]:
        """Any samples as the micro-batches of one process."""
        return self._collate(self._plan(samples, processes)[rank])

    def counts(self, step: int) -> StepCounts:
        """What the step's loss is divided by, whatever the layout and the number of processes."""
        return count(self.file, self.step_samples(step), self.training.mask_prompt)

    def micro_batches(self, step: int, rank: int = 0, processes: int = 1) -> list[Batch]:
        """The micro-batches of one process; every process has equally many, some perhaps empty."""
        return self._collate(self._plan(self.step_samples(step), processes)[rank])

    def padding(self, step: int, processes: int = 1) -> Padding:
        """Tokens and positions of the step, from lengths alone; empty micro-batches are not counted."""
        return self._padding(self._plan(self.step_samples(step), processes))

    def tokens(self, step: int) -> int:
        """Tokens of the step's sequences."""
        return int(self.file.lengths[self.step_samples(step)].sum())

    def evaluation_counts(self) -> StepCounts:
        """As `counts`, of the evaluation split."""
        return count(self.file, list(range(self.held_out)), self.training.mask_prompt)

    def evaluation_batches(self, rank: int = 0, processes: int = 1) -> list[Batch]:
        """As `micro_batches`, of the evaluation split; empty where nothing is held out."""
        return self._collate(self.evaluation_plan(processes)[rank])

    def evaluation_plan(self, processes: int = 1) -> list[list[MicroBatch]]:
        """The micro-batches of the evaluation split by process, as rows of samples; `collate` makes one a Batch."""
        return self._plan(list(range(self.held_out)), processes)

    def collate(self, rows: MicroBatch) -> Batch:
        """Rows of samples as tensors."""
        return collate(self.file, rows, mask_prompt=self.training.mask_prompt, packed=self.layout == "packed")

    def _collate(self, plan: list[MicroBatch]) -> list[Batch]:
        return [self.collate(rows) for rows in plan]

    def _plan(self, samples: list[int], processes: int) -> list[list[MicroBatch]]:
        lengths = self.file.lengths[samples].tolist()
        limits = Limits(self.training.micro_batch_size, self.training.max_length, processes)
        laid_out = LAYOUTS[self.layout](lengths, limits)
        chosen = [tuple(tuple(samples[index] for index in row) for row in rows) for rows in laid_out]
        return deal(chosen, processes)

    def _padding(self, plan: list[list[MicroBatch]]) -> Padding:
        total = Padding(0, 0)
        for rows in (rows for hand in plan for rows in hand if rows):
            loads = [sum(int(self.file.lengths[sample]) for sample in row) for row in rows]
            total += Padding(sum(loads), len(loads) * max(loads))
        return total
