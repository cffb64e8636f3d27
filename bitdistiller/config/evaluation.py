"""What is measured of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from bitdistiller.config.base import Dtype, Name, Section
from bitdistiller.config.data import Writing

PerplexityDataset = Literal["wikitext2", "c4", "text", "demo-text"]
MathDataset = Literal["gsm8k", "demo-math"]
CodeDataset = Literal["humaneval", "mbpp", "demo-code"]
OFFICIAL_TASKS = (
    "arc_challenge",
    "arc_easy",
    "boolq",
    "hellaswag",
    "mmlu",
    "openbookqa",
    "piqa",
    "social_iqa",
    "winogrande",
)
"""Tasks of lm-eval that run on local files as they are (evaluation/official.py)."""


class Evaluated(Section):
    """What every evaluation has."""

    label: str | None = None
    """Column heading; the default is the evaluation's name."""
    published: str | None = None
    """The metric's name in reporting/papers/*.csv (ppl, mmlu, ...), to print the paper's number beside ours."""
    batch_size: PositiveInt = 16
    """Sequences per forward pass."""
    shards: PositiveInt = 1
    """Jobs that the items are divided over, in ranges; the predictions are the same for every number of them."""


class TextEvaluation(Evaluated):
    """An evaluation on running text, in chunks."""

    dataset: PerplexityDataset
    path: Path | None = None
    """Local file instead of the hub."""
    chunk_length: PositiveInt | None = None
    """Tokens per chunk; the default is 2048, or the model's context where that is shorter."""
    max_chunks: PositiveInt | None = None
    max_documents: PositiveInt | None = None


class PerplexityEvaluation(TextEvaluation):
    """Perplexity in chunks, or in sliding windows (docs/method.md 5)."""

    kind: Literal["perplexity"]
    stride: PositiveInt | None = None
    """Begin a window of chunk_length tokens every so many; each predicts what the ones before it did not hold. null:
    chunks that do not overlap."""
    bos: bool = False
    """Begin the text with the tokenizer's BOS token."""

    @model_validator(mode="after")
    def _windows_touch(self) -> Self:
        if self.stride is not None and self.stride > (self.chunk_length or self.stride):
            raise ValueError(f"stride ({self.stride}) must be at most chunk_length ({self.chunk_length})")
        return self


class AgreementEvaluation(TextEvaluation):
    """KL divergence from the full-precision model, and equal first choices (docs/method.md 5); quantised runs only."""

    kind: Literal["agreement"]


class GenerativeEvaluation(Writing, Evaluated):
    """An evaluation for which the model writes an answer."""

    path: Path | None = None
    """Local file instead of the hub."""
    max_items: PositiveInt | None = None
    """First items only; the table then says so by its n."""
    max_new_tokens: PositiveInt = 512
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """0 is greedy decoding; the paper samples GSM8K at 0.2."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: int = 42


class MathEvaluation(GenerativeEvaluation):
    """Exact match of the number after "The answer is: "."""

    kind: Literal["math"]
    dataset: MathDataset


class CodeEvaluation(GenerativeEvaluation):
    """pass@k of generated functions, run in the sandbox."""

    kind: Literal["code"]
    dataset: CodeDataset
    samples: PositiveInt = 1
    """Programs written for every problem, each with a seed of its own."""
    k: tuple[PositiveInt, ...] = (1,)
    """The pass@k to estimate from them, 1 among them; none above `samples`."""
    timeout: PositiveFloat = 10.0
    """Seconds a program may run."""
    memory_mb: PositiveInt = 512
    """Address space a program may use, in MiB."""

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        if 1 not in self.k or max(self.k) > self.samples:
            raise ValueError(f"k: {', '.join(map(str, self.k))}; accepted: 1 and others up to samples ({self.samples})")
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"samples: {self.samples} greedy programs are all the same; give a temperature above 0")
        return self


class MultipleChoiceEvaluation(Evaluated):
    """Log-likelihood ranking of choices by lm-eval."""

    kind: Literal["multiple_choice"]
    task: str
    """An lm-eval task name. With `path` those of arc_easy, arc_challenge, boolq, hellaswag, mmlu, openbookqa, piqa,
    social_iqa and winogrande are lm-eval's own tasks on local data; any other is a name for questions of your own."""
    path: Path | None = None
    """Local file instead of the hub, with the columns of the hub's dataset or with `choices` and `gold` beside the
    question; or a directory with a file for each split, which few-shot examples from another split need. For questions
    of your own: `question` (or `query`), `choices` and `gold`."""
    max_items: PositiveInt | None = None
    few_shot: NonNegativeInt = 0
    scoring: Literal["standard", "legacy"] = "standard"
    """legacy: context and choice are tokenised apart and without BOS, as in the harness of OneBit's tables."""
    metric: Literal["acc", "acc_norm"] = "acc"
    """The metric in the table; both are in metrics.json."""


Evaluation = Annotated[
    PerplexityEvaluation | AgreementEvaluation | MathEvaluation | CodeEvaluation | MultipleChoiceEvaluation,
    Field(discriminator="kind"),
]


class Average(Section):
    """A column of the table that is the mean of others."""

    of: Annotated[tuple[Name, ...], Field(min_length=2)]
    """Evaluations whose table column is a share; the average is there for runs that have all of them."""
    label: str | None = None
    """Column heading; the default is the average's name."""
    published: str | None = None
    """The metric's name in reporting/papers/*.csv."""


class EvaluateRecipe(Section):
    """Everything the stage `evaluate` needs."""

    name: str
    evaluation: Evaluation
    dtype: Dtype = "bfloat16"
