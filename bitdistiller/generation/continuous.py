"""Continuous batching: sequences that have ended leave at once, and waiting ones take their places."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.sampling import PromptNoise, draw
from bitdistiller.generation.slots import Slots

ADMITTED_SHARE = 1 / 8
"""Waiting prompts enter when this share of the rows is free, so that they are prefilled several at a time."""
GPU_STEPS = 4
"""Tokens between two looks at what has ended; each look waits for the GPU."""


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    seeds: Sequence[int],
    sampling: Sampling,
    end: Collection[int],
    rows: int,
) -> list[list[int]]:
    """
    New tokens of every prompt, in order, the one that ended it included; at most `rows` sequences run at once.

    What runs beside what is a function of prompts and new tokens alone. Keys and values are kept for `rows` sequences
    of the longest prompt with its limit, however many prompts there are.
    """
    sequences = [Running(*each) for each in zip(prompts, limits, seeds, strict=True)]
    with ThreadPoolExecutor(1) as aside:
        Schedule(model, sequences, sampling, end, rows, aside).run()
    return [sequence.new for sequence in sequences]


def steps_between_looks(device: torch.device) -> int:
    """Tokens that are decoded before the host looks for ends."""
    return GPU_STEPS if device.type == "cuda" else 1


@dataclass
class Running:
    """One sequence."""

    prompt: list[int]
    limit: int
    seed: int
    new: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self.prompt) + len(self.new)

    def extend(self, tokens: Sequence[int], end: Collection[int]) -> None:
        """Take tokens up to the one that ends the sequence, or up to its limit."""
        for token in tokens:
            self.new.append(token)
            self.ended = token in end or len(self.new) == self.limit
            if self.ended:
                return


class Schedule:
    """Which sequence is in which row, and their last tokens; see `decode`."""

    def __init__(
        self,
        model: Any,
        sequences: Sequence[Running],
        sampling: Sampling,
        end: Collection[int],
        rows: int,
        aside: ThreadPoolExecutor,
    ) -> None:
        self.model, self.sampling, self.end, self.aside = model, sampling, end, aside
        self.rows = min(rows, len(sequences))
        self.waiting = deque(sorted(sequences, key=lambda sequence: len(sequence.prompt)))
        self.running: list[Running] = []
        self.slots = Slots(model, self.rows, max((len(s.prompt) + s.limit for s in sequences), default=0))
        self.columns = torch.arange(self.slots.frame.width, device=model.device)
        self.noise, self.vocabulary = PromptNoise([]), 0
        self.tokens = self.positions = self.columns[:0]

    def run(self) -> None:
        """Until nothing runs and nothing waits."""
        steps = steps_between_looks(self.model.device)
        while self.running or self.waiting:
            self._admit()
            longest = max(sequence.length for sequence in self.running)
            tokens = [self._step(min(longest + ahead, self.slots.frame.width)) for ahead in range(steps)]
            for sequence, new in zip(self.running, torch.stack(tokens, 1).tolist(), strict=True):
                sequence.extend(new, self.end)
            self._dismiss()

    def _admit(self) -> None:
        free = self.rows - len(self.running)
        if not self.waiting or free < min(len(self.waiting), max(1, int(self.rows * ADMITTED_SHARE))):
            return
        new = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        self._prefill(new)
        self.running += new
        self.noise.add([sequence.seed for sequence in new])
        self.tokens = torch.cat([self.tokens, self._tensor([sequence.prompt[-1] for sequence in new])])
        self.positions = torch.cat([self.positions, self._tensor([len(sequence.prompt) - 1 for sequence in new])])

    def _prefill(self, new: Sequence[Running]) -> None:
        """Keys and values of all tokens of the prompts but the last, whose step is one like any other."""
        length = max(len(sequence.prompt) for sequence in new) - 1
        if not length:
            return
        padded = [sequence.prompt[:-1] + [0] * (length + 1 - len(sequence.prompt)) for sequence in new]
        self.slots.frame.prefill(len(self.running))
        self._forward(self._tensor(padded), self.columns[:length].expand(len(new), -1), None)

    def _step(self, used: int) -> torch.Tensor:
        """One more token for each running sequence, (sequences,) int64; all that they look at is in `used` columns."""
        drawn = self.aside.submit(self.noise.step, self.vocabulary) if self.vocabulary else None
        self.slots.frame.decode(self.positions, used)
        later = self.columns[:used] > self.positions[:, None]
        mask = torch.zeros(later.shape, dtype=self.model.dtype, device=later.device)
        mask.masked_fill_(later, torch.finfo(mask.dtype).min)
        logits = self._forward(self.tokens[:, None], self.positions[:, None], mask[:, None, None])[:, -1]
        noise = drawn.result() if drawn else self._first_noise(logits.shape[-1])
        self.tokens = draw(logits, noise, self.sampling)
        self.positions = (self.positions + 1).clamp_(max=self.slots.frame.width - 1)
        return self.tokens

    def _first_noise(self, vocabulary: int) -> torch.Tensor | None:
        """From now on the noise of a step is drawn beside its forward pass; greedy decoding needs none."""
        if not self.sampling.temperature:
            return None
        self.vocabulary = vocabulary
        return self.noise.step(vocabulary)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.slots.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits

    def _dismiss(self) -> None:
        """Sequences that have ended leave; the last rows move to their places."""
        kept = [row for row, sequence in enumerate(self.running) if not sequence.ended]
        if len(kept) == len(self.running):
            return
        holes = [row for row in range(len(kept)) if self.running[row].ended]
        movers = kept[len(kept) - len(holes) :]
        if movers:
            self.slots.move(movers, holes, max(self.running[row].length for row in movers))
        order = list(range(len(kept)))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        self.running = [self.running[row] for row in order]
        self.noise.keep(order)
        chosen = self._tensor(order)
        self.tokens, self.positions = self.tokens[chosen], self.positions[chosen]

    def _tensor(self, values: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.model.device)
