"""The student: clipped or warm-started, fake-quantised, with a head that gives losses instead of logits."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from bitdistiller.calibration import apply_clip, load_clip
from bitdistiller.config import TrainRecipe
from bitdistiller.distillation.batches import Batch
from bitdistiller.distillation.chunked import Term, chunked_loss
from bitdistiller.distillation.clock import Clock
from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.hidden_states import StatesTerm, recorded
from bitdistiller.distillation.inputs import Inputs
from bitdistiller.distillation.onebit_start import start_onebit
from bitdistiller.distillation.parameters import freeze_grids
from bitdistiller.distillation.signals import Signal
from bitdistiller.distillation.warm_start import apply_warm_start
from bitdistiller.formats import get_format
from bitdistiller.layers import mix_linears, quantize_linears


class LossHead(nn.Linear):
    """The output embedding: logits as before, or the loss of hidden states when it is given `terms`."""

    head: Head

    @classmethod
    def of(cls, model: Any) -> LossHead:
        """Take the place of the model's output embedding, around the same parameters."""
        linear = model.get_output_embeddings()
        made = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        made.head = Head.of(model)
        made.weight, made.bias = linear.weight, linear.bias
        model.set_output_embeddings(made)
        return made

    def forward(
        self,
        hidden: Tensor,
        signal: Signal | None = None,
        targets: Tensor | None = None,
        terms: list[Term] | None = None,
    ) -> Tensor:
        """Logits of `hidden`, or with `terms` the loss of positions (n, hidden size): see `chunked_loss`."""
        if terms is None:
            return super().forward(hidden)
        assert targets is not None
        own = replace(self.head, weight=self.weight, bias=self.bias)  # an engine may have swapped the parameters
        return chunked_loss(hidden, own, signal, targets, terms)


class Student(nn.Module):
    """A model whose call gives this micro-batch's share of the step's loss."""

    def __init__(self, model: Any, precision: str, clock: Clock) -> None:
        super().__init__()
        self.model, self.clock = model, clock
        self.dtype = getattr(torch, precision)
        LossHead.of(model)

    def forward(self, batch: Batch, keep: Tensor, signal: Signal | None, terms: list[Term | StatesTerm]) -> Tensor:
        """The loss (scalar) of the kept positions (rows, width) bool; `signal` and `terms` are those of the same."""
        of_states = [term for term in terms if isinstance(term, StatesTerm)]
        of_logits = [term for term in terms if isinstance(term, Term)]
        recording = recorded(self.model) if of_states else nullcontext([])
        with autocast(batch.input_ids.device, self.dtype):
            with recording as states:
                hidden = self.model.base_model(**batch.model_inputs).last_hidden_state[keep]
            with self.clock("loss"):
                loss = self.model.get_output_embeddings()(hidden, signal, batch.targets[keep], of_logits)
                for term in of_states:
                    loss = loss + term.value(states, keep)
                return loss


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in `dtype`; nothing changes for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def load_plain(directory: Path, masters: str = "float32") -> Any:
    """The student's model in the precision of its master weights, not quantised yet."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, masters))


def make_student(model: Any, recipe: TrainRecipe, inputs: Inputs) -> Any:
    """The model with its linear layers swapped for those that train, at their start; in place."""
    training = recipe.training
    if recipe.quantization.signs:
        start_onebit(model, training.onebit)
    elif recipe.quantization.bits:
        mix_linears(model, recipe.quantization.bits)
    else:
        _fake_quantise(model, recipe, inputs)
    if training.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model.train()


def _fake_quantise(model: Any, recipe: TrainRecipe, inputs: Inputs) -> None:
    """Clip once, fake-quantise the linear layers, start where a warm start left off."""
    quantization, training = recipe.quantization, recipe.training
    if inputs.clip is not None:
        apply_clip(model, load_clip(inputs.clip), quantization.group_size)
    number_format = get_format(quantization.format, quantization.scale_dtype, pad=quantization.pad)
    options = {"scale_grad": training.scale_grad, "train_scales": training.train_scales}
    quantize_linears(model, number_format, quantization.group_size, **options)
    freeze_grids(model, training)
    if inputs.warm_start is not None:
        with torch.no_grad():
            apply_warm_start(model, inputs.warm_start)


def skeleton(model: Any) -> Any:
    """A plain model of the same configuration without weights, whatever an engine has made of the class of `model`."""
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
    plain.generation_config = model.generation_config
    return plain
