"""Bytes of activations of a decoder, per layer and token, for a residual stream in float32 (docs/training.md)."""

from __future__ import annotations

from bitdistiller.distillation.shapes import Shapes
from bitdistiller.distillation.signals import CHUNK_BYTES, DEVICE_CHUNK_BYTES

STREAM = 4
"""Bytes of a value of the residual stream and the norms."""
CHUNK_COPIES = 8
"""Tensors of a chunk's logits alive at once: logits, log-probabilities and probabilities of both, and the gradient."""


def layer_bytes(model: Shapes, product_bytes: int) -> float:
    """
    What one block keeps of one token for its backward pass; h, a, m: widths of stream, attention, feed-forward part.

    Two norms keep input, normalised value and output: 24 h in float32. Where products are in 2 bytes, a copy for each
    product that reads it (q, k, v, gate, up) takes the output's place: 16 h + 10 h. Attention keeps q, k, v (repeated
    to all heads, where it is masked) and its output: 4 a. The feed-forward part keeps gate, its activation, up, and
    their product: 4 m.
    """
    h, a, m, b = model.hidden, model.attention, model.intermediate, product_bytes
    norms = 6 * STREAM * h if b == STREAM else (4 * STREAM + 5 * b) * h
    return norms + 4 * b * a + 4 * b * m


def scores_bytes(model: Shapes, width: int, product_bytes: int) -> float:
    """What the attention of one block keeps for one token beside that: scores where no fused kernel computes them."""
    return 0.0 if model.attention_kind != "eager" else model.heads * width * (product_bytes + STREAM)


def activation_bytes(model: Shapes, *, tokens: int, width: int, product_bytes: int, recomputed: bool) -> float:
    """
    Everything kept for the backward pass of `tokens` positions in rows of `width`.

    recomputed: gradient checkpointing keeps the input of every block, and one block's own activations at a time.
    """
    layer = layer_bytes(model, product_bytes) + scores_bytes(model, width, product_bytes)
    inside = STREAM * model.hidden * model.layers + layer if recomputed else layer * model.layers
    ends = 4 * STREAM * model.hidden
    mask = width * (1 + product_bytes)
    return tokens * (inside + ends + mask)


def backward_bytes(model: Shapes, *, tokens: int, width: int, product_bytes: int) -> float:
    """Gradients with respect to the activations of one block that exist at once: 3 m and 3 streams, scores twice."""
    scores = scores_bytes(model, width, product_bytes)
    return tokens * (3 * product_bytes * model.intermediate + 3 * STREAM * model.hidden + scores)


def loss_bytes(
    student: Shapes, teacher: Shapes | None, device: str, *, tokens: int, width: int, product_bytes: int
) -> float:
    """
    The chunked loss: hidden states of both with the student's gradient, heads in the precision of the products, the
    gradient of the student's head, and the chunk's logits.
    """
    hidden = 2 * STREAM * student.hidden + (product_bytes * teacher.hidden if teacher else 0)
    heads = STREAM * student.head_parameters + (
        product_bytes * student.head_parameters if product_bytes < STREAM else 0
    )
    row = 4 * student.vocabulary
    chunk = min(CHUNK_BYTES.get(device, DEVICE_CHUNK_BYTES), tokens * row)
    return tokens * hidden + heads + CHUNK_COPIES * chunk
