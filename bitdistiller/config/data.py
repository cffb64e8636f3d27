"""Teacher completions: prompts, generation, mixes, token files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from bitdistiller.config.base import Name, Section

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
    "vocabulary",
]
EngineName = Literal["auto", "transformers", "vllm"]


class PromptSource(Section):
    """Prompts of one dataset (docs/method.md 3)."""

    dataset: PromptDataset
    """Which dataset's rule makes the prompt; `text` takes the start of local documents, `prompts` takes them whole,
    `vocabulary` needs no data: every token of the vocabulary starts a text (LLM-QAT)."""
    samples: PositiveInt | None = None
    """Completions of this source in the mix. vocabulary: null takes all."""
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
    prefixes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (3, 4, 5)
    """vocabulary: a text for each of these lengths in tokens, up to which it is decoded greedily."""

    @model_validator(mode="after")
    def _enough_prompts(self) -> Self:
        if self.samples is None and (self.dataset != "vocabulary" or self.prompts is not None):
            raise ValueError(f"dataset {self.dataset} needs samples")
        if self.prompts is not None and self.samples is not None and self.prompts < self.samples:
            raise ValueError(f"prompts ({self.prompts}) must be at least samples ({self.samples})")
        if self.dataset in ("text", "prompts") and self.path is None:
            raise ValueError(f"dataset {self.dataset} needs a path")
        return self

    @property
    def prompt_count(self) -> int | None:
        """Prompts to complete; None for all of a vocabulary."""
        if self.samples is None:
            return None
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
    top_k: PositiveInt | None = None
    """Draw among this many most likely tokens; null: among all (LLM-QAT: 50)."""
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

    @model_validator(mode="after")
    def _room_behind_prefixes(self) -> Self:
        for source in self.sources:
            if source.dataset == "vocabulary" and max(source.prefixes) > self.generation.max_new_tokens:
                raise ValueError(
                    f"generation.max_new_tokens ({self.generation.max_new_tokens}) must be at least the longest prefix "
                    f"({max(source.prefixes)})"
                )
        return self


class TokenizeRecipe(Section):
    """Everything the stage `tokenize` needs."""

    max_length: PositiveInt = 1024
    """Longest sequence in tokens, prompt and completion together; what is longer is cut."""
    blocks: bool = False
    """Put all samples one behind the other and cut them into sequences of max_length tokens; a rest is left out."""
