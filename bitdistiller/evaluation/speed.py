"""How fast a model reads a prompt and writes tokens, beside another one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bitdistiller.errors import InputError
from bitdistiller.evaluation.subject import Subject
from bitdistiller.generation.integer_cache import cache_bytes, inference_cache
from bitdistiller.stages.provenance import device

SEED = 0


@dataclass(frozen=True)
class Load:
    """What is measured: sequences at once, tokens of their prompts, and tokens written after them."""

    prompt_tokens: int = 512
    new_tokens: int = 128
    batch: int = 1
    repeats: int = 5


@dataclass
class Speed:
    """
    One model: seconds of every repetition for the prompt (`prefill`) and for all new tokens (`decode`).

    memory: bytes of parameters and buffers; disk: bytes of the directory; cache: bytes of the KV cache after the last
    token; peak: bytes allocated on the GPU at most.
    """

    name: str
    load: Load
    memory: int
    disk: int
    seconds_to_load: float
    peak: int | None = None
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    cache: int = 0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second, over all sequences; the median repetition."""
        return self.load.batch * self.load.prompt_tokens / statistics.median(self.prefill)

    @property
    def decode_rate(self) -> float:
        """New tokens a second, over all sequences; the median repetition."""
        return self.load.batch * self.load.new_tokens / statistics.median(self.decode)

    @property
    def token_milliseconds(self) -> float:
        """Milliseconds from one new token of a sequence to the next."""
        return 1000 * statistics.median(self.decode) / self.load.new_tokens

    def spread(self, seconds: Sequence[float]) -> float:
        """Largest deviation from the median, as a share of it."""
        median = statistics.median(seconds)
        return max(abs(value - median) for value in seconds) / median


def measure(paths: Sequence[Path], load: Load, dtype: str | None = None, packed: bool = False) -> list[Speed]:
    """
    The speed of every model; they are measured in turns, so that what else the machine does meets all of them.

    dtype: of the arithmetic; None takes what each model declares. packed: keep the weights of the first, a packed
    checkpoint, packed in memory.
    Raises InputError where prompt and new tokens together exceed a model's context.
    """
    models = [_open(path, load, dtype, packed and not i) for i, path in enumerate(paths)]
    for turn in range(load.repeats + 1):
        for model, speed in models:
            prefill, decode, speed.cache = _once(model, load)
            if turn:  # the first warms up
                speed.prefill.append(prefill)
                speed.decode.append(decode)
    if torch.cuda.is_available():
        for model, speed in models:
            torch.cuda.reset_peak_memory_stats()
            others = torch.cuda.memory_allocated() - speed.memory
            _once(model, load)
            speed.peak = torch.cuda.max_memory_allocated() - others
    return [speed for _, speed in models]


def _open(path: Path, load: Load, dtype: str | None, packed: bool) -> tuple[Any, Speed]:
    begin = time.perf_counter()
    subject = Subject.load(path, dtype, packed=packed)
    seconds = time.perf_counter() - begin
    if load.prompt_tokens + load.new_tokens > subject.context:
        asked = f"{load.prompt_tokens} + {load.new_tokens}"
        raise InputError(f"{path}: --prompt-tokens and --new-tokens, {asked}, exceed its context of {subject.context}")
    tensors = [*subject.model.parameters(), *subject.model.buffers()]
    memory = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    disk = sum(file.stat().st_size for file in Path(path).glob("*.safetensors"))
    return subject.model, Speed(f"{path} (packed)" if packed else str(path), load, memory, disk, seconds)


@torch.inference_mode()
def _once(model: Any, load: Load) -> tuple[float, float, int]:
    """Seconds for the prompt, and for the new tokens after it; bytes of the cache at the end."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (load.batch, load.prompt_tokens)
    tokens = torch.randint(model.config.vocab_size, shape, generator=generator).to(model.device)
    cache = inference_cache(model)
    begin = _now()
    output = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    read = _now()
    for _ in range(load.new_tokens):
        chosen = output.logits[:, -1].argmax(-1, keepdim=True)
        output = model(input_ids=chosen, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
    return read - begin, _now() - read, cache_bytes(output.past_key_values)


def machine() -> str:
    """GPUs or processor, threads and version in one line."""
    return f"{device()}, {torch.get_num_threads()} threads, torch {torch.__version__.partition('+')[0]}"


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
