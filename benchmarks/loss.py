"""The loss forward and backward by chunks, beside full logits with autograd: `python benchmarks/loss.py`.

Writes benchmarks/loss.csv. Forms take turns, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from measure import machine, number, peak_mib, timings, write_csv

from bitdistiller.distillation.chunked import Term, chunked_loss
from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.losses import get_loss
from bitdistiller.distillation.signals import HiddenSignal, Signal, TopKSignal

TOKENS, VOCABULARY, GAMMA, RUNS, K = 4096, 32000, 0.6, 5, 32
WIDTHS = (512, 2048)
Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def main() -> None:
    """Measure on the CPU, and on a GPU where there is one."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        write_csv("loss", [row for width in WIDTHS for row in rows(device, width)])


class Case:
    """Hidden states and heads of a student and a teacher that is near it."""

    def __init__(self, device: str, width: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(device)

        self.hidden, self.weight = random(TOKENS, width), random(VOCABULARY, width) / width**0.5
        teacher = self.weight + random(VOCABULARY, width) * (0.3 / width**0.5)
        self.signal = HiddenSignal(self.hidden + 0.1 * random(TOKENS, width), self.head(teacher))
        self.weights = torch.full((TOKENS,), 1 / 8, device=device)
        self.targets = torch.zeros(TOKENS, dtype=torch.int64, device=device)

    @staticmethod
    def head(weight: torch.Tensor) -> Head:
        """A plain head."""
        return Head(weight, None, None, 1.0, len(weight))

    def top_k(self) -> TopKSignal:
        """The signal's K most probable tokens, found chunk by chunk."""
        parts = []
        for positions in torch.arange(TOKENS, device=self.hidden.device).split(256):
            found = self.signal.rows(positions)
            best, ids = found.topk(K)
            parts.append((ids, best, found.scatter(-1, ids, -torch.inf).logsumexp(-1)))
        return TopKSignal(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def naive(self) -> Gradients:
        """The formula on the logits of all tokens, by autograd."""
        hidden, weight = self.hidden.detach().requires_grad_(), self.weight.detach().requires_grad_()
        student = torch.log_softmax(hidden @ weight.T, -1)
        with torch.no_grad():
            teacher = torch.log_softmax(self.signal.hidden @ self.signal.head.weight.T, -1)
        reverse = (student.exp() * (student - teacher)).sum(-1)
        forward = (teacher.exp() * (teacher - student)).sum(-1)
        loss = ((GAMMA * reverse + (1 - GAMMA) * forward) * self.weights).sum()
        return loss.detach(), *torch.autograd.grad(loss, (hidden, weight))

    def chunked(self, signal: Signal) -> Gradients:
        """The same chunk by chunk."""
        hidden, weight = self.hidden.detach().requires_grad_(), self.weight.detach().requires_grad_()
        terms = [Term(get_loss("cakld"), 1.0, self.weights, GAMMA)]
        loss = chunked_loss(hidden, self.head(weight), signal, self.targets, terms)
        return loss.detach(), *torch.autograd.grad(loss, (hidden, weight))


def rows(device: str, width: int) -> Iterator[dict[str, Any]]:
    """One row for each form: medians over turns, peak beyond the inputs, and the difference to the naive loss."""
    case = Case(device, width)
    top = case.top_k()
    forms = {
        "full logits": case.naive,
        "by chunks": lambda: case.chunked(case.signal),
        f"by chunks, teacher's top {K}": lambda: case.chunked(top),
    }
    peaks = {form: peak_mib(function, device) for form, function in forms.items()}
    found = in_turns(forms)
    times = {form: statistics.median(each) for form, each in found.items()}
    exact = case.naive()
    for form, function in forms.items():
        yield {
            "device": device,
            "shape": f"{TOKENS}x{VOCABULARY}",
            "hidden_size": width,
            "form": form,
            "seconds": number(times[form]),
            "fastest": number(min(found[form])),
            "times_faster": number(times["full logits"] / times[form]),
            "peak_mib": number(peaks[form]),
            "share_of_naive_peak": number(peaks[form] / peaks["full logits"]),
            "largest_relative_difference": "" if form.endswith(str(K)) else difference(function(), exact),
            "machine": machine(device),
        }


def in_turns(forms: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Wall times of RUNS rounds through all forms."""
    found: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(RUNS):
        for form, function in forms.items():
            found[form] += timings(function, 1, warm_up=0)
    return found


def difference(found: Gradients, exact: Gradients) -> str:
    """Largest difference of loss and gradients, each as a share of the largest exact value."""
    shares = [(a - b).abs().max() / b.abs().max() for a, b in zip(found, exact, strict=True)]
    return f"{max(share.item() for share in shares):.1e}"


if __name__ == "__main__":
    main()
