"""An engine that copies prompts, fails, or dies, as the prompt says."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from bitdistiller.errors import InputError
from bitdistiller.generation.engine import Completion, Sampling
from bitdistiller.generation.engines import Wanted


class ToyEngine:
    """Its completions say the process, its GPUs, the prompt and the seed."""

    def __init__(self, wanted: Wanted, tensor: int) -> None:
        if wanted.dtype == "wrong":
            raise InputError("engine: toy: cannot load it")

    def complete(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """See Engine."""
        if "fail" in prompts:
            raise ZeroDivisionError("no such number")
        if "die" in prompts:
            os.kill(os.getpid(), signal.SIGKILL)
        place = f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
        return [Completion(f"{place} {p} {s}", [], 1, "eos") for p, s in zip(prompts, seeds, strict=True)]
