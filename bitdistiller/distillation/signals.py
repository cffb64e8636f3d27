"""The teacher's side of a loss: its hidden states with its head, or its most probable tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.losses.base import log_probabilities

SMALLEST_REST = -100.0
CHUNK_BYTES = {"cpu": 32 << 20}
DEVICE_CHUNK_BYTES = 256 << 20


class Signal(Protocol):
    """What a teacher says about n positions."""

    def cut(self, vocabulary: int) -> Signal:
        """The same signal about at most the first `vocabulary` tokens."""
        ...

    def rows(self, positions: Tensor) -> Tensor:
        """Log-probability rows (c, v) of some positions (c,) int64; float32, or float64 where it is computed so."""
        ...

    def coarse(self, positions: Tensor, student: Tensor) -> Tensor:
        """The student's log-probabilities (c, V) over the events of `rows`, (c, v)."""
        ...

    def pull_back(self, positions: Tensor, slopes: Tensor, student: Tensor, coarse: Tensor) -> Tensor:
        """
        Gradient (c, V) with respect to the student's logits of a value with derivative `slopes` (c, v) by `coarse`.

        May change `slopes`.
        """
        ...

    def label_log_probability(self, targets: Tensor) -> Tensor:
        """Log-probability of targets (n,) int64 at every position, (n,); 0 where the target is negative."""
        ...

    def top_log_probability(self) -> Tensor:
        """Log-probability of the most probable token at every position, (n,)."""
        ...


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Positions whose float32 logits fill a chunk: 32 MiB on the CPU, 256 MiB elsewhere."""
    return max(1, CHUNK_BYTES.get(device.type, DEVICE_CHUNK_BYTES) // (4 * vocabulary))


class _Full:
    """The events are the tokens themselves."""

    def coarse(self, positions: Tensor, student: Tensor) -> Tensor:
        """The student's rows as they are."""
        return student

    def pull_back(self, positions: Tensor, slopes: Tensor, student: Tensor, coarse: Tensor) -> Tensor:
        """See Signal: slopes - p_S times their sum."""
        total = slopes.sum(-1, keepdim=True)
        return slopes.addcmul_(student.exp(), total, value=-1.0)


@dataclass(frozen=True)
class LabelSignal(_Full):
    """Label ids (n,) int64 in the teacher's place, for losses that need none."""

    targets: Tensor

    def rows(self, positions: Tensor) -> Tensor:
        """Label ids (c,)."""
        return self.targets[positions]


@dataclass(frozen=True)
class HiddenSignal(_Full):
    """The teacher's last hidden states (n, hidden size) and its head: the whole distribution, made chunk by chunk."""

    hidden: Tensor
    head: Head

    def cut(self, vocabulary: int) -> HiddenSignal:
        """The distribution over the first `vocabulary` tokens, normalised anew."""
        return HiddenSignal(self.hidden, self.head.cut(vocabulary))

    def to(self, dtype: torch.dtype) -> HiddenSignal:
        """The same with a head whose products are in `dtype`."""
        return HiddenSignal(self.hidden, self.head.to(dtype))

    @torch.no_grad()
    def rows(self, positions: Tensor) -> Tensor:
        """See Signal; v is the vocabulary."""
        return log_probabilities(self.head.logits(self.hidden[positions]))

    def label_log_probability(self, targets: Tensor) -> Tensor:
        """See Signal."""
        found = [
            self.rows(part).gather(-1, targets[part].clamp(min=0).unsqueeze(-1)).squeeze(-1) for part in self._parts()
        ]
        return torch.cat(found).masked_fill(targets < 0, 0.0)

    def top_log_probability(self) -> Tensor:
        """See Signal."""
        return torch.cat([self.rows(part).amax(-1) for part in self._parts()])

    def _parts(self) -> tuple[Tensor, ...]:
        everything = torch.arange(len(self.hidden), device=self.hidden.device)
        return everything.split(chunk_rows(self.head.vocabulary, self.hidden.device))


class TopKSignal:
    """
    The teacher's k most probable tokens and the mass of all others.

    Both distributions are coarse-grained to the k tokens and one event "rest", so v = k + 1, the rest last. By the data
    processing inequality every divergence of the coarse distributions is a lower bound of the divergence of the full
    ones; the bound is exact where teacher and student share the rest alike.
    """

    def __init__(
        self,
        ids: Tensor,
        log_probabilities: Tensor,
        rest: Tensor,
        label_log_probability: Tensor | None = None,
        vocabulary: int | None = None,
    ) -> None:
        """
        ids (n, k) int64; log_probabilities (n, k); rest (n,), log of the missing mass, no less than e^-100.

        label_log_probability (n,): that of the labels, where it is known exactly; without it a label beyond the k
        has an equal share of the rest, for which `vocabulary` must be given.
        """
        self.ids, self.log_probabilities, self.rest = ids, log_probabilities, rest.clamp(min=SMALLEST_REST)
        self.labels, self.vocabulary = label_log_probability, vocabulary

    def cut(self, vocabulary: int) -> TopKSignal:
        """The signal itself: tokens that both models lack are never among the k, and part of the rest."""
        return self

    def rows(self, positions: Tensor) -> Tensor:
        """See Signal."""
        rows = torch.cat([self.log_probabilities[positions], self.rest[positions].unsqueeze(-1)], dim=-1)
        return rows if rows.dtype == torch.float64 else rows.float()

    def coarse(self, positions: Tensor, student: Tensor) -> Tensor:
        """See Signal; the student's rest is summed over its own tokens, not taken as 1 - the k."""
        ids = self.ids[positions]
        rest = student.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
        return torch.cat([student.gather(-1, ids), rest], dim=-1)

    def pull_back(self, positions: Tensor, slopes: Tensor, student: Tensor, coarse: Tensor) -> Tensor:
        """
        See Signal: one of the k has its slope - p_S sum G, one of the others its share of what the rest has so.

        The share is taken from logarithms, as the rest may be too small for its exponential.
        """
        ids, total = self.ids[positions], slopes.sum(-1, keepdim=True)
        slopes.addcmul_(coarse.exp(), total, value=-1.0)
        gradient = (student - coarse[:, -1:]).exp_().mul_(slopes[:, -1:])
        return gradient.scatter_(-1, ids, slopes[:, :-1])

    def label_log_probability(self, targets: Tensor) -> Tensor:
        """See Signal; exact where it was given, or where the label is among the k."""
        if self.labels is not None:
            return self.labels.masked_fill(targets < 0, 0.0)
        if self.vocabulary is None:
            raise ValueError("a label beyond the k tokens needs label_log_probability or vocabulary")
        share = self.rest - torch.tensor(float(self.vocabulary - self.ids.shape[1])).log()
        among = self.ids == targets.unsqueeze(-1)
        found = self.log_probabilities.masked_fill(~among, -torch.inf).amax(-1)
        return torch.where(among.any(-1), found, share).masked_fill(targets < 0, 0.0)

    def top_log_probability(self) -> Tensor:
        """See Signal; exact."""
        return self.log_probabilities.amax(-1)
