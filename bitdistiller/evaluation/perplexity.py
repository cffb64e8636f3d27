"""Perplexity in chunks of equal length (docs/method.md 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bitdistiller.config import PerplexityEvaluation
from bitdistiller.data.rows import column
from bitdistiller.errors import InputError
from bitdistiller.evaluation.batches import Record, in_batches, slices
from bitdistiller.evaluation.datasets import rows
from bitdistiller.evaluation.metrics import Metric, perplexity
from bitdistiller.evaluation.subject import Subject
from bitdistiller.stages import Stage

LONGEST_CHUNK = 2048
SEPARATOR = "\n\n"


def predict(stage: Stage, evaluation: PerplexityEvaluation, subject: Subject) -> tuple[list[Record], Record]:
    """
    One record per chunk: `index`, `tokens` predicted and their mean negative log-likelihood `nll` in nats (None where
    it is not finite); and the protocol. Raises InputError when the text is shorter than one chunk.
    """
    length = chunk_length(evaluation.chunk_length, subject.context)
    documents = document_texts(evaluation)
    chunks = chunk_tokens(documents, subject.tokenizer, length, evaluation.max_chunks)

    def work(batch: Sequence[int]) -> list[Record]:
        losses = chunk_losses(subject.model, chunks[batch[0] : batch[-1] + 1])
        return [_record(index, length, loss) for index, loss in zip(batch, losses, strict=True)]

    batches = slices(range(len(chunks)), evaluation.batch_size)
    records = in_batches(stage, "chunks", batches, work, "chunk")
    protocol = {
        "dataset": evaluation.dataset,
        "chunk_length": length,
        "documents": len(documents),
        "predicted_tokens": len(chunks) * (length - 1),
        "special_tokens": False,
        "separator": SEPARATOR,
    }
    return records, protocol


def measure(records: Sequence[Record], _: PerplexityEvaluation) -> dict[str, Metric]:
    """Perplexity over all chunks."""
    return {"perplexity": perplexity([record["nll"] for record in records], "chunks")}


def chunk_length(wanted: int | None, context: int) -> int:
    """The chunk length in tokens; raises InputError where it is longer than the model's context, or less than 2."""
    length = min(LONGEST_CHUNK, context) if wanted is None else wanted
    if not 2 <= length <= context:
        raise InputError(f"chunk_length: {length} must be from 2 to the model's context, {context}")
    return length


def document_texts(evaluation: PerplexityEvaluation) -> list[str]:
    """The documents; those of wikitext2 are its lines, with their line ends, as on the hub."""
    found = rows(evaluation.dataset, evaluation.path, evaluation.max_documents)
    where = f"dataset {evaluation.dataset}"
    texts = [column(row, "text", where=where) for row in found]
    return [_wikitext_line(text) for text in texts] if evaluation.dataset == "wikitext2" else texts


def _wikitext_line(text: str) -> str:
    return text.rstrip("\n") + "\n" if text.strip() else ""


def chunk_tokens(documents: Sequence[str], tokenizer: Any, length: int, max_chunks: int | None = None) -> Tensor:
    """
    The joined documents, tokenised once without special tokens and cut: (chunks, length) int64, the rest left out.

    Raises InputError when there is not one whole chunk.
    """
    encoded = tokenizer(SEPARATOR.join(documents), add_special_tokens=False, verbose=False)
    ids = torch.tensor(encoded["input_ids"], dtype=torch.int64)
    count = min(len(ids) // length, max_chunks or len(ids))
    if count == 0:
        raise InputError(f"the text has {len(ids)} tokens, less than one chunk; lower chunk_length ({length})")
    return ids[: count * length].reshape(count, length)


@torch.inference_mode()
def chunk_losses(model: Any, chunks: Tensor) -> list[float]:
    """
    Mean negative log-likelihood in nats of the length - 1 predicted tokens of each chunk.

    chunks: (batch, length) int64; log-softmax in float32, the mean in float64.
    """
    chunks = chunks.to(model.device)
    logits = model(input_ids=chunks, use_cache=False).logits
    pairs = zip(logits, chunks, strict=True)
    return [_token_losses(row[:-1], ids[1:]).double().mean().item() for row, ids in pairs]


def _token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def _record(index: int, length: int, loss: float) -> Record:
    return {"index": index, "tokens": length - 1, "nll": loss if math.isfinite(loss) else None}
