"""Generation with vLLM: prompts and completions as token ids, so that both engines read and write the same text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from bitdistiller.data.tokenising import encode_prompt, prompt_ids
from bitdistiller.errors import InputError
from bitdistiller.generation.engine import Completion, Sampling, Wanted
from bitdistiller.generation.serving import gpu_count
from bitdistiller.generation.transformers_engine import end_tokens

GPU_MEMORY_SHARE = 0.9
SURROUNDINGS = {
    # The engine in this process: no copy of it outlives a kill, and SIGTERM is the stage's to handle.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # Without a GPU: as many threads as the job has, on whichever cores are free; gigabytes for keys and values.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}


class VllmEngine:
    """
    One copy of a model, on `tensor` GPUs or on the CPU; the prompts of a call are batched continuously.

    With equal seeds a completion does not depend on the other prompts but for rounding; drawn tokens are others than
    those of the transformers engine, greedy ones the same but for rounding.
    """

    def __init__(self, wanted: Wanted, tensor: int = 1) -> None:
        """Raises InputError with vLLM's reason where it cannot load the model."""
        self.tokenizer = AutoTokenizer.from_pretrained(wanted.model)
        self.context = context_of(wanted.model)
        self.eos = end_tokens(SimpleNamespace(generation_config=generation_config(wanted.model)), self.tokenizer)
        self.llm = start(wanted, tensor, self.context)
        self.limit = self.llm.model_config.max_model_len

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, special tokens included."""
        return len(encode_prompt(self.tokenizer, prompt))

    def complete(
        self, prompts: Sequence[str | list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """One completion per prompt, at most to the end of the model's context; see Engine."""
        rows = [prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        room = [min(sampling.max_new_tokens, self.context - len(row)) for row in rows]
        self._check(rows, room)
        given = [{"prompt_token_ids": row} for row in rows]
        settings = [self._settings(seed, limit, sampling) for seed, limit in zip(seeds, room, strict=True)]
        answers = self.llm.generate(given, settings, use_tqdm=False)
        return [self._completion(len(row), answer.outputs[0]) for row, answer in zip(rows, answers, strict=True)]

    def _check(self, rows: Sequence[list[int]], room: Sequence[int]) -> None:
        if min(room) <= 0:
            raise InputError(f"a prompt of {max(map(len, rows))} tokens leaves no room in a context of {self.context}")
        longest = max(len(row) + limit for row, limit in zip(rows, room, strict=True))
        if longest > self.limit:
            raise InputError(
                f"engine: vllm: memory is left for sequences of {self.limit} tokens, and a prompt with max_new_tokens "
                f"needs {longest}; lower max_new_tokens, give the job more GPUs, or take engine: transformers"
            )

    def _settings(self, seed: int, max_tokens: int, sampling: Sampling) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or 0,
            seed=seed,
            max_tokens=max_tokens,
            stop_token_ids=list(self.eos),
            ignore_eos=True,  # ours are those of the tokenizer and of the model's configuration
            detokenize=False,
        )

    def _completion(self, prompt_tokens: int, output: Any) -> Completion:
        ended = output.finish_reason == "stop"
        kept = list(output.token_ids)[: -1 if ended else None]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Completion(text, kept, prompt_tokens, "eos" if ended else "length")


def start(wanted: Wanted, tensor: int, context: int) -> Any:
    """vLLM with the model loaded and tried; raises InputError with the first line of its reason where that fails."""
    for name, value in SURROUNDINGS.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    try:
        llm = LLM(
            model=str(wanted.model),
            skip_tokenizer_init=True,
            generation_config="vllm",  # not the model's: its penalties and limits would join ours
            dtype=wanted.dtype,
            max_model_len=-1 if wanted.longest is None else min(context, wanted.longest),
            tensor_parallel_size=tensor,
            gpu_memory_utilization=GPU_MEMORY_SHARE,
            enforce_eager=not gpu_count(),
            enable_prefix_caching=False,  # rounding would depend on what came before, so on where an attempt began
            seed=0,
        )
        llm.generate([{"prompt_token_ids": [0]}], SamplingParams(max_tokens=1, detokenize=False), use_tqdm=False)
    except (ValueError, RuntimeError, NotImplementedError, ImportError) as error:
        raise InputError(f"engine: vllm: cannot load {wanted.model}: {reason(error)}") from error
    return llm


def reason(error: BaseException) -> str:
    """The first line of an error that says something, without the heads that pydantic puts before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "validation error" in lines[0]:
        lines = lines[1:]
    return lines[0] if lines else type(error).__name__


def context_of(model: Path) -> int:
    """Longest sequence of a model directory in tokens."""
    return getattr(AutoConfig.from_pretrained(model), "max_position_embeddings", None) or 2**31


def generation_config(model: Path) -> GenerationConfig:
    """The generation defaults of a model directory, as transformers finds them when it loads the model."""
    if (model / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(model)
    return GenerationConfig.from_model_config(AutoConfig.from_pretrained(model))
