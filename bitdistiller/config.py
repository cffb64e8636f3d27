"""
The one source of every option: its meaning, unit and default.

An experiment file holds models, mixes, calibrations, trainings, evaluations and runs; a run joins them by name.
`python -m bitdistiller schema` writes `workflow/schemas/config.schema.json` from these classes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

LossName = Literal["cakld", "forward", "reverse", "jsd", "tlsd", "ce"]
FormatName = Literal["int2", "int3", "int4", "nf2", "nf3", "nf4", "sym3", "sym4", "sym8"]
Dtype = Literal["float32", "bfloat16"]
EngineName = Literal["auto", "transformers", "vllm"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

RESERVED_RUN_NAMES = ("base", "clip", "grams", "mixes")

PromptDataset = Literal[
    "wikitext",
    "redpajama",
    "alpaca",
    "alpaca-solar",
    "openorca-solar",
    "ultra-solar",
    "code",
    "math",
    "text",
    "prompts",
    "demo-text",
    "demo-math",
    "demo-code",
]
CalibrationDataset = Literal["pile", "code", "gsm8k", "text", "demo"]
PerplexityDataset = Literal["wikitext2", "c4", "text", "demo-text"]
MathDataset = Literal["gsm8k", "demo-math"]
CodeDataset = Literal["humaneval", "mbpp", "demo-code"]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- models ----------------------------------------------------------------------------------------------------------


class DemoTeacherRecipe(Section):
    """The embedded LLaMA-architecture teacher, trained on the generated corpus by `pretrain-demo`."""

    seed: int = 42
    """Seed of the corpus, the initial weights and the order of the data."""
    hidden_size: PositiveInt = 128
    intermediate_size: PositiveInt = 384
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    kv_heads: PositiveInt = 4
    vocabulary: PositiveInt = 1024
    """Size of the byte-level BPE vocabulary."""
    context: PositiveInt = 128
    """Longest sequence in tokens."""
    documents: PositiveInt = 9000
    """Training documents per track."""
    steps: PositiveInt = 1400
    """Optimizer steps."""
    batch_size: PositiveInt = 8
    """Sequences per optimizer step."""
    learning_rate: PositiveFloat = 2e-3
    """Peak learning rate."""


class Model(Section):
    """A full-precision model: exactly one of `path`, `hub` and `demo`."""

    path: Path | None = None
    """Local directory in Hugging Face layout (config.json, safetensors, tokenizer)."""
    hub: str | None = None
    """Hub id, `organisation/name`; downloaded by the rule `fetch` alone."""
    revision: str | None = None
    """Commit or tag of `hub`; a commit makes the run reproducible."""
    demo: DemoTeacherRecipe | None = None
    """Train the embedded demo teacher; `{}` takes the defaults."""
    title: str | None = None
    """Name in tables; equal to the paper's name, the published numbers are printed beside ours."""
    dtype: Dtype = "bfloat16"
    """Precision of the full-precision model and of evaluation."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [key for key in ("path", "hub", "demo") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of path, hub and demo (found {', '.join(given) or 'none'})")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision belongs to hub; a local path has none")
        return self


# --- teacher completions ---------------------------------------------------------------------------------------------


class PromptSource(Section):
    """Prompts of one dataset (docs/method.md 3)."""

    dataset: PromptDataset
    """Which dataset's rule makes the prompt; `text` takes the start of local documents, `prompts` takes them whole."""
    samples: PositiveInt
    """Completions of this source in the mix."""
    prompts: PositiveInt | None = None
    """Prompts to complete; default 3 % more than `samples`, as duplicates and empty ones drop out."""
    path: Path | None = None
    """Local file or directory instead of the hub: JSON, JSON lines, CSV or text, also .gz, or parquet."""
    skip_rows: NonNegativeInt = 0
    """Leave out this many first rows (kept for evaluation, say)."""
    prompt_characters: PositiveInt = 128
    """Text datasets: the prompt is this many first characters."""
    prompt_tokens: PositiveInt | None = None
    """Text datasets: take this many first tokens instead of characters."""
    minimum_characters: NonNegativeInt = 512
    """Text datasets: documents must be longer than this."""

    @model_validator(mode="after")
    def _enough_prompts(self) -> Self:
        if self.prompts is not None and self.prompts < self.samples:
            raise ValueError(f"prompts ({self.prompts}) must be at least samples ({self.samples})")
        if self.dataset in ("text", "prompts") and self.path is None:
            raise ValueError(f"dataset {self.dataset} needs a path")
        return self

    @property
    def prompt_count(self) -> int:
        """Prompts to complete."""
        return self.prompts if self.prompts is not None else self.samples + max(1, -(-3 * self.samples // 100))


class Writing(Section):
    """What writes a model's text."""

    engine: EngineName = "auto"
    """vllm runs in the serving environment (`make env-serve`); auto: vllm where that and a GPU are there."""
    tensor_parallel: PositiveInt | None = None
    """vllm: GPUs that share one copy of the model; null takes the fewest that hold it. Others hold further copies."""
    commit_every: PositiveInt = 256
    """Prompts after which what was written is safe from a kill, at least `batch_size`; a kill costs at most these."""

    def group(self, batch_size: int) -> int:
        """Prompts that are begun and saved together."""
        return max(self.commit_every, batch_size)


class Generation(Writing):
    """How the teacher completes prompts (docs/method.md 3)."""

    temperature: Annotated[float, Field(ge=0.0)] = 0.7
    """0 is greedy decoding."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_new_tokens: PositiveInt = 1024
    max_prompt_tokens: PositiveInt = 1024
    """Longer prompts, and those that fill the model's context, are dropped and counted, never cut."""
    batch_size: PositiveInt = 32
    """Sequences that the transformers engine decodes at once; vllm decides for itself."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, prompt and completion together."""
        return self.max_prompt_tokens + self.max_new_tokens


class Mix(Section):
    """Training data written by the teacher."""

    teacher: Name
    """The model that writes the completions."""
    sources: Annotated[list[PromptSource], Field(min_length=1)]
    shards: PositiveInt = 8
    """Jobs the prompts are divided over."""
    seed: int = 42
    """Seed of the choice of prompts, of every prompt's sampling and of the shuffle."""
    generation: Generation = Generation()
    allow_fewer: bool = False
    """Accept a source with fewer usable completions than `samples` (the digest file has the counts)."""


# --- clip search -----------------------------------------------------------------------------------------------------


class Calibration(Section):
    """Calibration text of the clip search (docs/method.md 2)."""

    texts: CalibrationDataset
    """`text` is a local file given by `path`."""
    path: Path | None = None
    """Local file instead of the hub: JSON, JSON lines, CSV or text, also .gz, or parquet."""
    samples: PositiveInt = 128
    """Texts to use."""
    block_length: PositiveInt = 1024
    """Tokens per calibration sequence; cut to the model's context."""
    max_text_tokens: PositiveInt | None = 512
    """Texts longer than this are skipped, as in the reference; null keeps them all."""
    tokens: PositiveInt | None = None
    """Calibration tokens kept, by stride over all (reference: 512); null uses every one."""
    skip: tuple[str, ...] = ("q_", "k_", "query", "key", "Wqkv")
    """Projections whose name contains one of these are not clipped."""
    shards: PositiveInt = 1
    """Jobs that the calibration sequences are divided over; their Gram matrices add up."""
    grid_steps: PositiveInt = 10
    """Ratios tried for each end of a group, `1 - grid_limit i / grid_steps` for i = 0 .. grid_steps - 1."""
    grid_limit: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Largest share that may be cut off an end, exclusive."""
    refinement: NonNegativeInt = 0
    """Rounds of coordinate descent after the grid (not in the reference); each halves the step."""
    importance: bool = False
    """Weight every token's error by the squared gradient of the loss with respect to the layer's output (not in the
    reference); needs a backward pass through the model."""
    seed: int = 42

    @model_validator(mode="after")
    def _local_path(self) -> Self:
        if self.texts == "text" and self.path is None:
            raise ValueError("texts: text needs a path")
        return self


SEARCH_ONLY = frozenset({"shards", "grid_steps", "grid_limit", "refinement"})
"""Options of a calibration on which its Gram matrices do not depend."""


class Quantization(Section):
    """A number format with its group size."""

    format: FormatName
    group_size: PositiveInt = 128
    """Consecutive input columns that share a scale."""
    scale_dtype: Dtype = "bfloat16"
    """Precision to which scales are rounded, in training and in the packed file alike."""
    pad: bool = False
    """Where the group size does not divide a layer's input features, fill its last group up with zeros."""


class GramRecipe(Section):
    """Everything one shard of the calibration needs; Gram matrices do not depend on the number format."""

    group_size: PositiveInt = 128
    """Consecutive input columns that share a scale."""
    pad: bool = False
    """Where the group size does not divide a layer's input features, fill its last group up with zeros."""
    calibration: Calibration


class ClipRecipe(Section):
    """Everything the stage `clip` needs."""

    quantization: Quantization
    calibration: Calibration

    @property
    def grams(self) -> GramRecipe:
        """Recipe of the Grams that this search needs."""
        chosen = self.quantization
        return GramRecipe(group_size=chosen.group_size, pad=chosen.pad, calibration=self.calibration)


class TokenizeRecipe(Section):
    """Everything the stage `tokenize` needs."""

    max_length: PositiveInt = 1024
    """Longest sequence in tokens, prompt and completion together; what is longer is cut."""


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


# --- training --------------------------------------------------------------------------------------------------------


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


class Training(Section):
    """Distillation (docs/method.md 4). The defaults are the paper's for general models."""

    loss: LossName | Annotated[dict[LossName, PositiveFloat], Field(min_length=1)] = "cakld"
    """One loss, or coefficients by loss of a weighted sum: `{cakld: 1.0, ce: 0.1}`."""
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
    """Precision of the matrix products; master weights are float32."""
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
    seed: int = 42

    @field_validator("loss", mode="before")
    @classmethod
    def _sum_of_losses(cls, loss: Any) -> Any:
        """The sum of one loss alone is that loss, and the same recipe."""
        if not isinstance(loss, dict):
            return loss
        names, given = get_args(LossName), ", ".join(map(str, loss))
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
    if training.train_scales and number_format not in INTEGERS:
        raise ValueError(f"train_scales: {number_format} has no scales to train; accepted: {', '.join(INTEGERS)}")


class ExportRecipe(Section):
    """Everything the stage `export` needs."""

    quantization: Quantization
    dtype: Dtype = "bfloat16"
    """Precision of the weights that are not quantised, and of the model when it is loaded."""


# --- evaluation ------------------------------------------------------------------------------------------------------


class Evaluated(Section):
    """What every evaluation has."""

    label: str | None = None
    """Column heading; the default is the evaluation's name."""
    published: str | None = None
    """The metric's name in reporting/papers/*.csv (ppl, mmlu, ...), to print the paper's number beside ours."""
    batch_size: PositiveInt = 16
    """Sequences per forward pass."""


class PerplexityEvaluation(Evaluated):
    """Perplexity in chunks (docs/method.md 5)."""

    kind: Literal["perplexity"]
    dataset: PerplexityDataset
    path: Path | None = None
    """Local file instead of the hub."""
    chunk_length: PositiveInt | None = None
    """Tokens per chunk; the default is 2048, or the model's context where that is shorter."""
    max_chunks: PositiveInt | None = None
    max_documents: PositiveInt | None = None


class GenerativeEvaluation(Writing, Evaluated):
    """An evaluation for which the model writes an answer."""

    path: Path | None = None
    """Local file instead of the hub."""
    max_items: PositiveInt | None = None
    """First items only; the table then says so by its n."""
    max_new_tokens: PositiveInt = 512
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """0 is greedy decoding; the paper samples GSM8K at 0.2."""
    seed: int = 42


class MathEvaluation(GenerativeEvaluation):
    """Exact match of the number after "The answer is: "."""

    kind: Literal["math"]
    dataset: MathDataset


class CodeEvaluation(GenerativeEvaluation):
    """pass@1 of generated functions, run in the sandbox."""

    kind: Literal["code"]
    dataset: CodeDataset
    timeout: PositiveFloat = 10.0
    """Seconds a program may run."""
    memory_mb: PositiveInt = 512
    """Address space a program may use, in MiB."""


class MultipleChoiceEvaluation(Evaluated):
    """Log-likelihood ranking of choices by lm-eval."""

    kind: Literal["multiple_choice"]
    task: str
    """With `path`, a name for the local task; without, an lm-eval task name (arc_easy, piqa, ...)."""
    path: Path | None = None
    """Local JSON lines with `question` (or `query`), `choices` and `gold`."""
    max_items: PositiveInt | None = None
    few_shot: NonNegativeInt = 0
    metric: Literal["acc", "acc_norm"] = "acc"
    """The metric in the table; both are in metrics.json."""


Evaluation = Annotated[
    PerplexityEvaluation | MathEvaluation | CodeEvaluation | MultipleChoiceEvaluation, Field(discriminator="kind")
]


class EvaluateRecipe(Section):
    """Everything the stage `evaluate` needs."""

    name: str
    evaluation: Evaluation
    dtype: Dtype = "bfloat16"


# --- runs ------------------------------------------------------------------------------------------------------------


class Method(Section):
    """What a method is made of: the stages between the full-precision model and the evaluation."""

    title: str
    quantised: bool = True
    clip: bool = False
    train: bool = False
    baseline: bool = False
    """A quantisation library chooses the weights, in an environment of its own (docs/method.md 7)."""
    formats: tuple[FormatName, ...] | None = None
    """The number formats it has; None: all of them."""


INTEGERS: tuple[FormatName, ...] = ("int2", "int3", "int4")
METHODS: dict[str, Method] = {
    "16-bit": Method(title="16-bit", quantised=False),
    "rtn": Method(title="RTN"),
    "clip": Method(title="Clipped RTN", clip=True),
    "gptq": Method(title="GPTQ", baseline=True, formats=INTEGERS),
    "awq": Method(title="AWQ", baseline=True, formats=INTEGERS),
    "autoround": Method(title="AutoRound", baseline=True, formats=INTEGERS),
    "bitdistiller": Method(title="BitDistiller", clip=True, train=True),
}


class BaselineRecipe(Section):
    """Everything the stage `baseline` needs."""

    quantization: Quantization
    calibration: Calibration
    method: str
    """A method of the workflow that is a library's: gptq, awq or autoround."""

    @model_validator(mode="after")
    def _library_method(self) -> Self:
        known = [name for name, method in METHODS.items() if method.baseline]
        if self.method not in known:
            raise ValueError(f"method {self.method!r} is no library's; accepted: {', '.join(known)}")
        check_method(self.method, self.quantization.format, self.quantization.pad)
        return self


def check_method(method: str, number_format: str | None, pad: bool) -> None:
    """Raises ValueError when a method does not have a number format, or cannot pad."""
    formats = METHODS[method].formats
    if pad and METHODS[method].baseline:
        raise ValueError(f"method {method} takes no pad: its libraries need a group size that divides")
    if formats is not None and number_format not in formats:
        raise ValueError(f"method {method} has no format {number_format}; accepted: {', '.join(formats)}")


class Run(Section):
    """One row of a table: model + method + format + group size + mix + training preset + evaluations."""

    model: Name
    method: str
    format: FormatName | None = None
    group_size: PositiveInt = 128
    scale_dtype: Dtype = "bfloat16"
    pad: bool = False
    """Where the group size does not divide a layer's input features, fill its last group up with zeros."""
    calibration: Name | None = None
    mix: Name | None = None
    training: Name | None = None
    teacher: Name | None = None
    """Another full-precision model of the same vocabulary to distil from; the default is the run's own model."""
    nodes: PositiveInt = 1
    """Nodes of a SLURM cluster that its training runs on, each with what `resources.train` says; elsewhere one machine
    trains it alone. No number of the result depends on it but by rounding."""
    evaluations: list[Name] = []
    """Names of evaluations; empty means all of the experiment."""

    @property
    def quantization(self) -> Quantization:
        """Format, group size and scale precision of a quantised run."""
        assert self.format is not None
        keys = ("format", "group_size", "scale_dtype", "pad")
        return Quantization(**{key: getattr(self, key) for key in keys})

    @model_validator(mode="after")
    def _fits_method(self) -> Self:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; accepted: {', '.join(METHODS)}")
        method = METHODS[self.method]
        needs = {
            "format": method.quantised,
            "calibration": method.clip or method.baseline,
            "mix": method.train,
            "training": method.train,
        }
        for key, needed in needs.items():
            if needed and getattr(self, key) is None:
                raise ValueError(f"method {self.method} needs {key}")
            if not needed and getattr(self, key) is not None:
                raise ValueError(f"method {self.method} takes no {key}")
        if self.teacher is not None and not method.train:
            raise ValueError(f"method {self.method} takes no teacher")
        if self.nodes > 1 and not method.train:
            raise ValueError(f"method {self.method} takes no nodes")
        check_method(self.method, self.format, self.pad)
        return self


class StageResources(Section):
    """What one job of a stage may use."""

    gpu: NonNegativeInt = 0
    """GPUs on one node (`nodes` of a run: on each)."""
    threads: PositiveInt = 1
    """CPU cores."""
    mem_mb: PositiveInt = 4000
    """Host memory in MB. For mix, tokenize, export and baseline it grows with failed attempts, up to three times."""
    runtime: PositiveInt = 60
    """
    Walltime in minutes. Most stages stop by themselves before it and the next attempt goes on; for fetch, mix,
    tokenize, export, baseline and evaluate it grows with failed attempts, up to three times.
    """


class Resources(Section):
    """Resources per stage; a GPU count of 0 runs on the CPU."""

    fetch: StageResources = StageResources(runtime=240)
    pretrain_demo: StageResources = StageResources(threads=2)
    clip: StageResources = StageResources()
    baseline: StageResources = StageResources(threads=2, runtime=240)
    """Baselines by a library, which cannot stop before the walltime and starts over."""
    generate: StageResources = StageResources()
    mix: StageResources = StageResources()
    tokenize: StageResources = StageResources()
    cache: StageResources = StageResources()
    """Shards of `cache-teacher`."""
    warm_start: StageResources = StageResources(threads=2)
    train: StageResources = StageResources(threads=2)
    export: StageResources = StageResources()
    evaluate: StageResources = StageResources()


class Experiment(Section):
    """An experiment file."""

    experiment: Name = "demo"
    """Name of the experiment; its tables are in results/tables/<experiment>/."""
    title: str | None = None
    """Heading of the table."""
    paper: Name | None = None
    """Published numbers to print beside ours: a file name in reporting/papers without .csv."""
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    calibrations: dict[Name, Calibration] = {}
    mixes: dict[Name, Mix] = {}
    trainings: dict[Name, Training] = {}
    evaluations: dict[Name, Evaluation] = {}
    runs: Annotated[dict[Name, Run], Field(min_length=1)]
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for name, run in self.runs.items():
            if name in RESERVED_RUN_NAMES:
                raise ValueError(f"runs.{name}: this name is used by the workflow; choose another")
            places = [("model", run.model, self.models), ("teacher", run.teacher, self.models)]
            places += [("calibration", run.calibration, self.calibrations)]
            places += [("mix", run.mix, self.mixes), ("training", run.training, self.trainings)]
            places += [("evaluations", evaluation, self.evaluations) for evaluation in run.evaluations]
            for key, value, section in places:
                if value is not None and value not in section:
                    known = ", ".join(section) or "none"
                    raise ValueError(f"runs.{name}.{key}: {value!r} is not defined; defined: {known}")
            if run.training is not None:
                try:
                    check_trained_scales(self.trainings[run.training], run.format)
                except ValueError as error:
                    raise ValueError(f"runs.{name}.training: {error}") from None
                if run.nodes > 1 and self.trainings[run.training].engine == "single":
                    engines = "auto, ddp, fsdp, zero2, zero3"
                    raise ValueError(
                        f"runs.{name}.nodes: {run.nodes}, but the engine of training {run.training!r} is single, which "
                        f"is one process; accepted: {engines}"
                    )
        for name, mix in self.mixes.items():
            if mix.teacher not in self.models:
                raise ValueError(
                    f"mixes.{name}.teacher: {mix.teacher!r} is not defined; defined: {', '.join(self.models)}"
                )
        return self

    def evaluations_of(self, run: str) -> list[str]:
        """Names of the evaluations of a run, in the order of the experiment file."""
        chosen = self.runs[run].evaluations
        return [name for name in self.evaluations if not chosen or name in chosen]
