"""Perplexity in chunks of equal length, or in windows that overlap (docs/method.md 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bitdistiller.config import PerplexityEvaluation, TextEvaluation
from bitdistiller.data.rows import column
from bitdistiller.errors import InputError
from bitdistiller.evaluation.batches import Record, in_batches, slices, total
from bitdistiller.evaluation.datasets import rows
from bitdistiller.evaluation.metrics import Metric, perplexity
from bitdistiller.evaluation.subject import Subject
from bitdistiller.stages import Stage

LONGEST_CHUNK = 2048
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Span:
    """Tokens `begin` to `end` of a text, shown to the model at once; those from `first` on are predicted."""

    begin: int
    first: int
    end: int

    @property
    def predicted(self) -> int:
        """How many tokens are predicted."""
        return self.end - self.first


def predict(stage: Stage, evaluation: PerplexityEvaluation, subject: Subject) -> tuple[list[Record], Record]:
    """
    One record per chunk: `index`, `tokens` predicted and their mean negative log-likelihood `nll` in nats (None where
    it is not finite); and the protocol. Raises InputError when the text is shorter than one chunk.
    """
    length = chunk_length(evaluation.chunk_length, subject.context)
    documents = document_texts(evaluation)
    ids = text_tokens(documents, subject.tokenizer, evaluation.bos)
    if evaluation.stride is not None and evaluation.stride > length:
        raise InputError(f"stride: {evaluation.stride} would leave out tokens between windows of {length}")
    found = chunks(len(ids), length) if evaluation.stride is None else windows(len(ids), length, evaluation.stride)
    spans = found[: evaluation.max_chunks]

    def work(batch: Sequence[int]) -> list[Record]:
        losses = span_losses(subject.model, ids, [spans[index] for index in batch])
        return [_record(i, spans[i].predicted, loss) for i, loss in zip(batch, losses, strict=True)]

    batches = slices(range(len(spans)), evaluation.batch_size)
    records = in_batches(stage, "chunks", batches, work, "chunk")
    sliding = {"stride": evaluation.stride} if evaluation.stride is not None else {}
    protocol = {
        "dataset": evaluation.dataset,
        "chunk_length": length,
        "documents": len(documents),
        "predicted_tokens": sum(span.predicted for span in spans),
        "special_tokens": evaluation.bos,
        "separator": SEPARATOR,
    }
    return records, protocol | sliding | total(len(spans), len(found))


def measure(records: Sequence[Record], evaluation: PerplexityEvaluation) -> dict[str, Metric]:
    """Perplexity over all predicted tokens."""
    tokens = None if evaluation.stride is None else [record["tokens"] for record in records]
    return {"perplexity": perplexity([record["nll"] for record in records], "chunks", tokens)}


def chunk_length(wanted: int | None, context: int) -> int:
    """The chunk length in tokens; raises InputError where it is longer than the model's context, or less than 2."""
    length = min(LONGEST_CHUNK, context) if wanted is None else wanted
    if not 2 <= length <= context:
        raise InputError(f"chunk_length: {length} must be from 2 to the model's context, {context}")
    return length


def document_texts(evaluation: TextEvaluation) -> list[str]:
    """The documents; those of wikitext2 are its lines, with their line ends, as on the hub."""
    found = rows(evaluation.dataset, evaluation.path, evaluation.max_documents)
    where = f"dataset {evaluation.dataset}"
    texts = [column(row, "text", where=where) for row in found]
    return [_wikitext_line(text) for text in texts] if evaluation.dataset == "wikitext2" else texts


def _wikitext_line(text: str) -> str:
    return text.rstrip("\n") + "\n" if text.strip() else ""


def text_tokens(documents: Sequence[str], tokenizer: Any, bos: bool = False) -> Tensor:
    """
    The joined documents, tokenised once without special tokens, but for a first BOS where asked for: (n,) int64.

    Raises InputError for a tokenizer without a BOS that is asked for.
    """
    encoded = tokenizer(SEPARATOR.join(documents), add_special_tokens=False, verbose=False)
    if bos and tokenizer.bos_token_id is None:
        raise InputError("bos: the tokenizer has no BOS token")
    return torch.tensor([tokenizer.bos_token_id] * bos + encoded["input_ids"], dtype=torch.int64)


def chunks(tokens: int, length: int) -> list[Span]:
    """Whole chunks of a text, of which every token but the first is predicted; the rest is left out.

    Raises InputError when there is not one whole chunk.
    """
    if tokens < length:
        raise InputError(f"the text has {tokens} tokens, less than one chunk; lower chunk_length ({length})")
    return [Span(begin, begin + 1, begin + length) for begin in range(0, tokens - length + 1, length)]


def windows(tokens: int, length: int, stride: int) -> list[Span]:
    """
    Windows that begin every `stride` tokens until one reaches the end: every token but the first is predicted once,
    by the first window that holds it. Where windows do not overlap, that leaves out the first token of each.

    Raises InputError when there is nothing to predict.
    """
    if tokens < 2:
        raise InputError(f"the text has {tokens} tokens; a window predicts from the second on")
    count = 1 + max(0, -(-(tokens - length) // stride))
    begins = [index * stride for index in range(count)]
    ends = [min(begin + length, tokens) for begin in begins]
    firsts = [max(begin + 1, end) for begin, end in zip(begins, [0, *ends], strict=False)]
    spans = [Span(*span) for span in zip(begins, firsts, ends, strict=True)]
    return [span for span in spans if span.predicted]


@torch.inference_mode()
def span_losses(model: Any, ids: Tensor, spans: Sequence[Span]) -> list[float]:
    """
    Mean negative log-likelihood in nats of the predicted tokens of each span of the text ids (n,) int64.

    Log-softmax in float32, the mean in float64. Shorter spans are filled up at their end, where no other token sees it.
    """
    logits = model(input_ids=span_tokens(ids, spans).to(model.device), use_cache=False).logits
    return [
        _token_losses(row[span.first - span.begin - 1 : span.end - span.begin - 1], ids[span.first : span.end])
        for row, span in zip(logits, spans, strict=True)
    ]


def span_tokens(ids: Tensor, spans: Sequence[Span]) -> Tensor:
    """Token ids (spans, longest) int64, zeros behind the shorter ones."""
    rows = [ids[span.begin : span.end] for span in spans]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _token_losses(logits: Tensor, targets: Tensor) -> float:
    losses = torch.nn.functional.cross_entropy(logits.float(), targets.to(logits.device), reduction="none")
    return losses.double().mean().item()


def _record(index: int, tokens: int, loss: float) -> Record:
    return {"index": index, "tokens": tokens, "nll": loss if math.isfinite(loss) else None}
