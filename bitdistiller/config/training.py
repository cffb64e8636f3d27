"""Distillation: the teacher's cache, the warm start, the training itself."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from bitdistiller.config.base import INTEGERS, SIGNS, Dtype, Fraction, LossName, Section, loss_names
from bitdistiller.config.calibration import Quantization
from bitdistiller.config.mixed import mixed_bits


class TeacherCache(Section):
    """What is kept of a teacher that training does not load (docs/method.md 4)."""

    kind: Literal["hidden", "topk"] = "hidden"
    """hidden: the last hidden states, to which the teacher's head is applied during training: as exact as a live
    teacher; topk: its k largest log-probabilities and the mass it gives to all other tokens together."""
    k: PositiveInt = 32
    """topk: tokens kept at every position."""
    shards: PositiveInt = 1
    """Jobs that the samples are divided over."""


class CacheRecipe(Section):
    """Everything one shard of `cache-teacher` needs."""

    kind: Literal["hidden", "topk"] = "hidden"
    """hidden: the last hidden states; topk: the k largest log-probabilities and the mass of all other tokens."""
    k: PositiveInt = 32
    """topk: tokens kept at every position."""
    precision: Dtype = "bfloat16"
    """Precision of the teacher and of the hidden states that are kept."""
    batch_tokens: PositiveInt = 16384
    """Tokens per forward pass, padding included; progress is saved after each."""


class WarmStart(Section):
    """Block-wise reconstruction before distillation (docs/method.md 4, after EfficientQAT, arXiv 2407.11062).

    The default learning rates are EfficientQAT's for 2 bits, meant for models of 7B parameters and more.
    """

    samples: PositiveInt = 512
    """Sequences of max_length tokens, cut from the start of the mix's training part; those of a last batch that is not
    full are left out. The host holds 8 bytes for each of their tokens times the model's hidden size."""
    epochs: PositiveInt = 2
    """Passes over the samples for every block."""
    batch_size: PositiveInt = 4
    """Sequences per optimizer step."""
    learning_rate: PositiveFloat = 2e-5
    """Peak learning rate of the weights; it falls to 0 along a cosine, anew in every block."""
    scale_learning_rate: PositiveFloat = 1e-4
    """Peak learning rate of trained scales."""
    zero_point_learning_rate: NonNegativeFloat = 0.0
    """Peak learning rate of zero points, in steps of the grid; 0 leaves them at the integers of the clipped weights."""
    seed: int = 42


class OneBitStart(Section):
    """How the 1-bit layers of method onebit begin (arXiv 2402.11295, section 3.3)."""

    decomposition: Literal["nmf", "svd"] = "nmf"
    """Of the weights' magnitudes into two vectors. nmf: the authors'; svd: the same product, split evenly."""
    latent: PositiveFloat = 0.01
    """Magnitude of the latent weights; with Adam at 4e-4 about 25 equal steps turn a sign."""


class Training(Section):
    """Distillation (docs/method.md 4). The defaults are the paper's for general models."""

    loss: LossName | Annotated[dict[LossName, PositiveFloat], Field(min_length=1)] = "cakld"
    """One loss, or coefficients by loss of a weighted sum: `{cakld: 1.0, ce: 0.1}`."""
    hidden_states: NonNegativeFloat = 0.0
    """Coefficient of a further summand, the distance of the hidden states that blocks pass on, each divided by its
    length: summed over blocks, a mean over tokens whatever the reduction (OneBit: 1). Needs a live teacher."""
    gamma: Literal["paper", "reference"] | Fraction = "paper"
    """CAKLD's confidence: computed as in the paper, as in the reference code, or a fixed value (jsd: its beta)."""
    gamma_samples: PositiveInt | None = None
    """Training samples over which the paper's gamma is averaged; null takes all."""
    gamma_batches: PositiveInt = 10
    """Batches over which the reference's gamma is averaged (its `cakld_steps`)."""
    gamma_reference_sum: bool = False
    """Restore the reference's sum over one batch too many."""
    reduction: Literal["sequence_sum", "token_mean"] = "sequence_sum"
    """sequence_sum: sum over tokens, mean over sequences (the reference; its learning rate is tuned to it)."""
    learning_rate: PositiveFloat = 8e-6
    schedule: Literal["constant", "cosine", "linear", "one-cycle"] = "constant"
    warmup: Fraction = 0.0
    """Share of the steps over which the learning rate rises (one-cycle: 0 means 0.3)."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """adamw-8bit keeps both moments as 8-bit codes: about 2 bytes a parameter instead of 8 (needs torchao)."""
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.999
    max_gradient_norm: PositiveFloat = 1.0
    divergence_patience: PositiveInt = 5
    """Stop after this many steps in a row whose loss or gradient is not finite; each such step is skipped."""
    epochs: PositiveFloat = 4
    max_steps: PositiveInt | None = None
    """Optimizer steps; overrides `epochs`."""
    batch_size: PositiveInt = 128
    """Sequences per optimizer step, over all processes."""
    micro_batch_size: PositiveInt = 8
    """Sequences per forward pass (packed: rows of at most max_length tokens); must divide batch_size."""
    max_length: PositiveInt = 1024
    """Longest training sequence in tokens, prompt and completion together."""
    blocks: bool = False
    """Train on sequences of exactly max_length tokens, cut from all samples one behind the other (OneBit, LLM-QAT);
    false: on samples as they are, cut at max_length."""
    mask_prompt: bool = False
    """Leave the prompt's tokens out of the loss (in the reference they count)."""
    batching: Literal["auto", "packed", "grouped", "padded"] = "auto"
    """How a step's sequences lie in memory, which changes speed alone. packed: several in a row of at most max_length
    tokens that do not see each other; grouped: sorted by length, padded to the longest of a micro-batch; padded: as
    drawn (the reference); auto: packed where the model's attention keeps sequences apart, else grouped."""
    evaluation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """First share of the mix, kept for the evaluation loss; the best checkpoint by it is the result (0: the last)."""
    evaluate_every: PositiveInt = 4
    """Optimizer steps between evaluations and saves."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints kept beside the best one."""
    teacher: Literal["live", "cached"] = "live"
    """live: the teacher is in memory and runs in every step; cached: the stage `cache-teacher` ran it once."""
    cache: TeacherCache = TeacherCache()
    """What is kept of a cached teacher."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    precision: Dtype = "bfloat16"
    """Precision of the matrix products."""
    masters: Dtype = "float32"
    """Precision of the trained weights and of the optimizer's moments. bfloat16 is LLM-QAT's released behaviour: at its
    learning rate most weights are too large for an update to change them. Not with DeepSpeed, nor adamw-8bit."""
    scale_grad: bool = True
    """Let gradients flow through the scale into a group's maximum and minimum (the reference)."""
    train_scales: bool = False
    """Train scales, and zero points where they have a learning rate, as parameters of their own beside the weights
    (int2, int3, int4); the clipped weights give their first values. scale_grad then has no meaning."""
    scale_learning_rate: PositiveFloat | None = None
    """Peak learning rate of trained scales, which are in the unit of the weights; null takes learning_rate."""
    zero_point_learning_rate: NonNegativeFloat = 0.0
    """Peak learning rate of zero points, in steps of the grid; 0 leaves them at the integers of the clipped weights."""
    warm_start: WarmStart | None = None
    """Reconstruct the blocks one by one before distilling (stage `warm-start`); null: start at the clipped weights."""
    engine: Literal["auto", "single", "ddp", "fsdp", "zero2", "zero3"] = "auto"
    """How processes share the student. ddp: each holds all of it; zero2 (DeepSpeed): gradients and optimizer state in
    shards; zero3 and fsdp: weights too; auto: single for one process, ddp for several."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What lies in host memory: nothing, the optimizer state (zero2, zero3), or the weights too (zero3, fsdp)."""
    onebit: OneBitStart = OneBitStart()
    """Where method onebit starts."""
    seed: int = 42

    @field_validator("loss", mode="before")
    @classmethod
    def _sum_of_losses(cls, loss: Any) -> Any:
        """The sum of one loss alone is that loss, and the same recipe."""
        if not isinstance(loss, dict):
            return loss
        names, given = loss_names(), ", ".join(map(str, loss))
        if not loss or not set(loss) <= set(names):
            raise ValueError(f"a weighted sum takes coefficients of {', '.join(names)}, not of {given or 'nothing'}")
        if not all(isinstance(value, (int, float)) and 0 < value < math.inf for value in loss.values()):
            raise ValueError("the coefficients of a weighted sum must be numbers greater than 0")
        return next(iter(loss)) if list(loss.values()) == [1] else loss

    @property
    def losses(self) -> dict[LossName, float]:
        """Coefficients of the losses; a name alone has 1."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else self.loss

    @model_validator(mode="after")
    def _offload_fits_engine(self) -> Self:
        fitting = {"optimizer": ("zero2", "zero3"), "parameters": ("zero3", "fsdp")}
        if self.offload != "none" and self.engine not in fitting[self.offload]:
            accepted = " or ".join(fitting[self.offload])
            raise ValueError(f"offload: {self.offload} needs engine {accepted}, not {self.engine}")
        if self.offload != "none" and self.optimizer == "adamw-8bit":
            raise ValueError(f"offload: {self.offload} takes no optimizer: adamw-8bit; accepted: adamw")
        return self

    @model_validator(mode="after")
    def _narrow_masters(self) -> Self:
        if self.masters == "bfloat16" and (self.engine.startswith("zero") or self.optimizer != "adamw"):
            raise ValueError("masters: bfloat16; accepted with engine auto, single, ddp or fsdp, and optimizer adamw")
        return self

    @model_validator(mode="after")
    def _hidden_states_of_a_live_teacher(self) -> Self:
        if self.hidden_states and self.teacher != "live":
            raise ValueError(f"hidden_states: {self.hidden_states:g} needs teacher: live, not {self.teacher}")
        return self

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size ({self.micro_batch_size}) must divide batch_size ({self.batch_size})")
        return self

    @model_validator(mode="after")
    def _beta_of_jsd(self) -> Self:
        if "jsd" in self.losses and self.gamma in (0.0, 1.0):
            raise ValueError(f"loss jsd needs a gamma (its beta) strictly between 0 and 1, not {self.gamma:g}")
        return self


class TrainRecipe(Section):
    """Everything the stage `train` needs."""

    quantization: Quantization
    training: Training = Training()

    @model_validator(mode="after")
    def _scales_can_be_trained(self) -> Self:
        check_trained_scales(self.training, self.quantization.format)
        return self


class WarmStartRecipe(Section):
    """Everything the stage `warm-start` needs: a part of the training's options, which mean the same."""

    quantization: Quantization
    warm_start: WarmStart = WarmStart()
    train_scales: bool = False
    scale_grad: bool = True
    precision: Dtype = "bfloat16"
    max_length: PositiveInt = 1024
    evaluation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2

    @model_validator(mode="after")
    def _scales_can_be_trained(self) -> Self:
        check_trained_scales(self, self.quantization.format)
        return self


def check_trained_scales(training: Training | WarmStartRecipe, number_format: str | None) -> None:
    """Raises ValueError where scales are to be trained of a number format that has no such grid."""
    if training.warm_start is not None and number_format and (number_format == SIGNS or mixed_bits(number_format)):
        raise ValueError(f"warm_start: {number_format} has none; accepted: null")
    if training.train_scales and number_format not in INTEGERS:
        raise ValueError(f"train_scales: {number_format} has no scales to train; accepted: {', '.join(INTEGERS)}")
