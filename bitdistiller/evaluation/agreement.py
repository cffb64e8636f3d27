"""How much of a model's next-token distribution is left: KL divergence from it, and equal first choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitdistiller.config import AgreementEvaluation
from bitdistiller.errors import InputError
from bitdistiller.evaluation.batches import Record, in_batches, slices, total
from bitdistiller.evaluation.metrics import Metric, divergence, proportion
from bitdistiller.evaluation.perplexity import SEPARATOR, chunk_length, chunks, document_texts, span_tokens, text_tokens
from bitdistiller.evaluation.subject import Subject
from bitdistiller.stages import Stage

MOST_ELEMENTS = 2**24
"""Log-probabilities of one model that are in memory at once."""


def predict(stage: Stage, evaluation: AgreementEvaluation, subject: Subject) -> tuple[list[Record], Record]:
    """
    One record per chunk: `index`, `tokens`, and their mean `kl` in nats (None where it is not finite) and `top1`, the
    share whose most probable next token is the reference's.

    Raises InputError without a reference, for one of another vocabulary, and for a text shorter than one chunk.
    """
    reference = subject.reference
    if reference is None:
        raise InputError("agreement: give the full-precision model to agree with (--reference)")
    sizes = [model.config.vocab_size for model in (subject.model, reference)]
    if len(set(sizes)) > 1:
        raise InputError(f"agreement: the model has a vocabulary of {sizes[0]}, its reference one of {sizes[1]}")
    length = chunk_length(evaluation.chunk_length, subject.context)
    documents = document_texts(evaluation)
    ids = text_tokens(documents, subject.tokenizer)
    found = chunks(len(ids), length)
    spans = found[: evaluation.max_chunks]

    def work(batch: Sequence[int]) -> list[Record]:
        tokens = span_tokens(ids, [spans[index] for index in batch])
        pairs = agreement(subject.model, reference, tokens)
        return [_record(index, length - 1, *pair) for index, pair in zip(batch, pairs, strict=True)]

    records = in_batches(stage, "chunks", slices(range(len(spans)), evaluation.batch_size), work, "chunk")
    protocol = {
        "dataset": evaluation.dataset,
        "chunk_length": length,
        "documents": len(documents),
        "compared_tokens": len(spans) * (length - 1),
        "separator": SEPARATOR,
    }
    return records, protocol | total(len(spans), len(found))


def measure(records: Sequence[Record], _: AgreementEvaluation) -> dict[str, Metric]:
    """`kl` and `top1` over all chunks; a chunk's tokens depend on each other, so it is what standard errors count."""
    kl = divergence([record["kl"] for record in records], "chunks")
    return {"kl": kl, "top1": proportion([record["top1"] for record in records], "chunks") | {"quantity": "fraction"}}


@torch.inference_mode()
def agreement(model: Any, reference: Any, tokens: Tensor) -> list[tuple[float, float]]:
    """
    For each row of tokens (rows, length) int64: the mean over its first length - 1 positions of KL(reference || model)
    in nats, and the share of them at which both have one most probable token.

    Softmax in float32, means in float64.
    """
    logits, other = (m(input_ids=tokens.to(m.device), use_cache=False).logits[:, :-1] for m in (model, reference))
    return [_compare(row, aim.to(row.device)) for row, aim in zip(logits, other, strict=True)]


def _compare(logits: Tensor, aim: Tensor) -> tuple[float, float]:
    step = max(1, MOST_ELEMENTS // logits.shape[-1])
    parts = [_divergences(*pair) for pair in zip(logits.split(step), aim.split(step), strict=True)]
    kl, equal = (torch.cat(values).double().mean().item() for values in zip(*parts, strict=True))
    return kl, equal


def _divergences(logits: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
    log_q, log_p = F.log_softmax(logits.float(), -1), F.log_softmax(aim.float(), -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1), logits.argmax(-1) == aim.argmax(-1)


def _record(index: int, tokens: int, kl: float, top1: float) -> Record:
    return {"index": index, "tokens": tokens, "kl": kl if math.isfinite(kl) else None, "top1": top1}
