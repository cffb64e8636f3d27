"""The output side of a language model: from last hidden states to logits, apart from the rest of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from bitdistiller.errors import InputError
from bitdistiller.layers import TensorFiles

PROBE = 8
"""Tokens on which a head is compared with its model."""
STORED_NAMES = ("embed_out.weight",)
"""Names that files have for a head which transformers calls otherwise (GPT-NeoX)."""


@dataclass(frozen=True)
class Head:
    """logits = softcap tanh(scale (hidden weight^T + bias) / softcap), without the tanh where there is no softcap."""

    weight: Tensor
    """(rows, hidden size)"""
    bias: Tensor | None
    """(rows,)"""
    softcap: float | None
    scale: float
    """Multiplies the products."""
    vocabulary: int
    """Rows in use, from the first; the others are padding."""

    @classmethod
    def of(cls, model: Any) -> Head:
        """The head of a transformers model, sharing its parameters; raises InputError for a model without one."""
        linear = model.get_output_embeddings()
        if not isinstance(linear, nn.Linear):
            kind = model.config.model_type
            raise InputError(f"model type {kind} has no linear output embedding; accepted: causal language models")
        return cls(linear.weight, linear.bias, **declared(model.config, len(linear.weight)))

    def cut(self, vocabulary: int) -> Head:
        """The same head with at most `vocabulary` rows."""
        return replace(self, vocabulary=min(vocabulary, self.vocabulary))

    def to(self, dtype: torch.dtype) -> Head:
        """The same head, detached, its used rows in `dtype` (shared where they are already)."""
        bias = None if self.bias is None else self.bias.detach()[: self.vocabulary].to(dtype)
        return replace(self, weight=self.weight.detach()[: self.vocabulary].to(dtype), bias=bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, hidden size) -> (n, vocabulary): products in the dtype of the weight, scaled and capped in float32."""
        bias = None if self.bias is None else self.bias[: self.vocabulary]
        products = nn.functional.linear(hidden.to(self.weight.dtype), self.weight[: self.vocabulary], bias)
        if self.scale == 1.0 and self.softcap is None:
            return products
        logits = (products if products.dtype == torch.float64 else products.float()) * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def pull_back(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """The gradient (n, vocabulary) with respect to the products, from that of the logits, which it changes."""
        if self.softcap is not None:
            gradient.mul_(1.0 - (logits / self.softcap).square())
        return gradient.mul_(self.scale) if self.scale != 1.0 else gradient


def declared(config: Any, rows: int) -> dict[str, Any]:
    """Softcap, scale and vocabulary that a transformers configuration declares for a head with `rows` rows."""
    text = config.get_text_config()
    kind, scale = text.model_type, 1.0

    def option(name: str) -> float:
        return float(getattr(text, name, None) or 1.0)

    scale *= option("lm_head_multiplier") * option("output_multiplier")
    scale /= option("logits_mup_width_multiplier")
    if kind.startswith("cohere"):  # MPT declares a logit_scale too, and does not use it
        scale *= option("logit_scale")
    if kind.startswith("hyperclovax"):
        scale *= option("logits_scaling")
    else:
        scale /= option("logits_scaling")
    used = getattr(text, "unpadded_vocab_size", None) or rows
    softcap = getattr(text, "final_logit_softcapping", None)
    return {"softcap": softcap, "scale": scale, "vocabulary": min(used, rows)}


@torch.no_grad()
def check_head(model: Any, head: Head) -> None:
    """
    Compare the head's logits with the model's own on a few tokens.

    Raises InputError where they differ by more than rounding: an architecture that does something else to its logits.
    """
    training, embedding = model.training, model.get_input_embeddings().weight
    ids = torch.arange(PROBE, device=embedding.device).unsqueeze(0) % len(embedding)
    model.eval()
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    own, expected = head.logits(hidden).float(), model(input_ids=ids, use_cache=False).logits.float()
    model.train(training)
    tolerance = max(1e-4, 4 * torch.finfo(head.weight.dtype).eps) * expected.abs().max()
    if own.shape[-1] > expected.shape[-1] or not (own - expected[..., : own.shape[-1]]).abs().max() <= tolerance:
        raise InputError(
            f"model type {model.config.model_type}: its logits are not its output embedding's products with the scale "
            "and softcap that its configuration declares; accepted: architectures whose logits are"
        )


def common_vocabulary(student: Head, teacher: Head) -> tuple[Head, Head]:
    """Both heads with the rows that both have: one tokenizer's vocabulary may be padded differently."""
    vocabulary = min(student.vocabulary, teacher.vocabulary)
    return student.cut(vocabulary), teacher.cut(vocabulary)


def read_head(directory: Path, dtype: torch.dtype) -> Head:
    """
    The head of a model directory in `dtype`, reading no other tensor.

    Raises InputError when the directory holds no safetensors or not that tensor.
    """
    config = AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    head, files = Head.of(skeleton), TensorFiles(directory)
    weight, bias = (
        None if parameter is None else _read(skeleton, parameter, files).to(dtype)
        for parameter in (head.weight, head.bias)
    )
    return replace(head, weight=weight, bias=bias)


def _read(skeleton: Any, parameter: Tensor, files: TensorFiles) -> Tensor:
    """One parameter of a model without weights, under whichever of its names the files have (tied ones have two)."""
    names = [name for name, found in skeleton.named_parameters(remove_duplicate=False) if found is parameter]
    return files.read(next((name for name in (*names, *STORED_NAMES) if name in files), names[-1]))
