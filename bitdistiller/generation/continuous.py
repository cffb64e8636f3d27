"""Continuous batching: sequences that have ended leave at once, waiting ones take their place."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.sampling import PromptNoise, sample
from bitdistiller.generation.slots import Slots

ADMITTED_TOGETHER = 1 / 8
"""Waiting prompts enter when this share of the rows is free."""
GPU_STEPS = 4
"""Tokens between two looks at what has ended; on a GPU each look waits for it."""


@dataclass
class Running:
    """One sequence."""

    prompt: list[int]
    seed: int
    limit: int
    new: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self.prompt) + len(self.new)

    def extend(self, tokens: Sequence[int], end: Collection[int]) -> None:
        """Take tokens up to the first that ends the sequence, or up to its limit."""
        for token in tokens:
            self.new.append(token)
            self.ended = token in end or len(self.new) == self.limit
            if self.ended:
                return


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

    The schedule is a function of prompts and tokens alone. Keys and values take `rows` times the longest prompt and its
    limit, whatever the number of prompts.
    """
    sequences = [Running(*each) for each in zip(prompts, seeds, limits, strict=True)]
    Schedule(model, sequences, sampling, end, rows).run()
    return [sequence.new for sequence in sequences]


class Schedule:
    """Decodes some sequences to their ends."""

    def __init__(
        self, model: Any, sequences: Sequence[Running], sampling: Sampling, end: Collection[int], rows: int
    ) -> None:
        self.model, self.sampling, self.end = model, sampling, end
        self.rows = min(rows, len(sequences))
        self.waiting = deque(sorted(sequences, key=lambda sequence: len(sequence.prompt)))
        self.running: list[Running] = []
        self.slots = Slots(model, self.rows, max(len(s.prompt) + s.limit for s in sequences))
        self.columns = torch.arange(self.slots.width, device=model.device)
        self.noise = PromptNoise([])
        self.tokens = self.positions = self.columns[:0]

    def run(self) -> None:
        """Until nothing runs and nothing waits."""
        steps = GPU_STEPS if self.model.device.type == "cuda" else 1
        while self.running or self.waiting:
            self._admit()
            tokens = torch.stack([self._step(ahead) for ahead in range(steps)], 1).tolist()
            for sequence, new in zip(self.running, tokens, strict=True):
                sequence.extend(new, self.end)
            self._dismiss()

    def _admit(self) -> None:
        free = self.rows - len(self.running)
        enough = min(len(self.waiting), max(1, int(self.rows * ADMITTED_TOGETHER)))
        if not self.waiting or free < enough:
            return
        new = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        self._prefill(new)
        self.running += new
        self.noise.add([sequence.seed for sequence in new])
        device = self.model.device
        tokens = torch.tensor([sequence.prompt[-1] for sequence in new], device=device)
        positions = torch.tensor([len(sequence.prompt) - 1 for sequence in new], device=device)
        self.tokens, self.positions = torch.cat([self.tokens, tokens]), torch.cat([self.positions, positions])

    def _prefill(self, new: list[Running]) -> None:
        """Keys and values of the prompts but for their last tokens, whose step is a step like any other."""
        length = max(len(sequence.prompt) for sequence in new) - 1
        if not length:
            return
        ids = [sequence.prompt[:-1] + [0] * (length + 1 - len(sequence.prompt)) for sequence in new]
        self.slots.prefill(len(self.running), len(new))
        self.model(
            input_ids=torch.tensor(ids, device=self.model.device),
            position_ids=self.columns[:length].expand(len(new), -1),
            past_key_values=self.slots.cache,
            use_cache=True,
            logits_to_keep=1,
        )

    def _step(self, ahead: int) -> torch.Tensor:
        """One more token (n,) for each running sequence; `ahead` others have not been looked at."""
        used = min(max(sequence.length for sequence in self.running) + ahead, self.slots.width)
        self.slots.decode(self.positions, used)
        hidden = self.columns[:used] > self.positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=hidden.device)
        mask.masked_fill_(hidden, torch.finfo(mask.dtype).min)
        logits = self.model(
            input_ids=self.tokens[:, None],
            position_ids=self.positions[:, None],
            attention_mask=mask[:, None, None],
            past_key_values=self.slots.cache,
            use_cache=True,
        ).logits[:, -1]
        noise = self.noise.step(logits.shape[-1]) if self.sampling.temperature else None
        self.tokens = sample(logits, noise, self.sampling.temperature, self.sampling.top_p)
        self.positions = (self.positions + 1).clamp_(max=self.slots.width - 1)
        return self.tokens

    def _dismiss(self) -> None:
        """Rows of sequences that have ended are filled from the last ones."""
        kept = [row for row, sequence in enumerate(self.running) if not sequence.ended]
        if len(kept) == len(self.running):
            return
        holes = [row for row in range(len(kept)) if self.running[row].ended]
        movers = [row for row in kept if row >= len(kept)]
        order = list(range(len(kept)))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        if movers:
            self.slots.move(movers, holes, max(self.running[row].length for row in movers))
        self.running = [self.running[row] for row in order]
        self.noise.keep(order)
        chosen = torch.tensor(order, dtype=torch.long, device=self.model.device)
        self.tokens, self.positions = self.tokens[chosen], self.positions[chosen]
