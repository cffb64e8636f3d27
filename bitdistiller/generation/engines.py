"""The engines that write text, and which of them a job takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bitdistiller.environments import SERVE
from bitdistiller.errors import InputError
from bitdistiller.generation.engine import Engine
from bitdistiller.generation.serving import gpu_count
from bitdistiller.stages.files import read_json, write_json

RECORD = "engine.json"


@dataclass(frozen=True)
class Wanted:
    """
    What an engine is to load: a full-precision model directory and its precision (float32 or bfloat16).

    longest: tokens of the longest sequence, prompt and completion together; None: the model's context, or what memory
    holds of it. tensor_parallel: GPUs that share a copy of the model; None: the fewest that hold it. batch_size:
    sequences that transformers decodes at once; vLLM decides for itself.
    """

    model: Path
    dtype: str
    longest: int | None = None
    tensor_parallel: int | None = None
    batch_size: int = 32


def settle(configured: str, work: Path) -> str:
    """
    The engine of a job whose state is in `work`: the configured one; for `auto` vLLM where it and a GPU are there.

    The first attempt records it there and later ones keep to it, so that no output is the work of two engines. Raises
    InputError where that engine cannot run here.
    """
    begun = "transformers" if any(work.iterdir()) else None  # a version that recorded none had this engine alone
    engine = recorded(work) or (configured if configured != "auto" else begun or _automatic())
    if engine == "vllm" and not SERVE.is_here:
        raise InputError(_missing(configured, work))
    write_json(work / RECORD, {"engine": engine})
    return engine


def _automatic() -> str:
    return "vllm" if SERVE.is_here and gpu_count() else "transformers"


def recorded(work: Path) -> str | None:
    """The engine that wrote what is in `work`; None where none was needed."""
    return read_json(work / RECORD)["engine"] if (work / RECORD).exists() else None


def _missing(configured: str, work: Path) -> str:
    if configured == "vllm":
        return f"engine: vllm: cannot be imported here; {SERVE.remedy}; or set engine: transformers"
    return f"{work}: was begun with vLLM, which cannot be imported here; {SERVE.remedy}; or remove it to begin anew"


def open_engine(name: str, wanted: Wanted) -> Engine:
    """Load a model with the engine called `name`; raises InputError with one line where it cannot be loaded."""
    return ENGINES[name](wanted)


def _transformers(wanted: Wanted) -> Engine:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bitdistiller.generation.transformers_engine import TransformersEngine

    loaded = AutoModelForCausalLM.from_pretrained(wanted.model, dtype=getattr(torch, wanted.dtype))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TransformersEngine(loaded.to(device), AutoTokenizer.from_pretrained(wanted.model), wanted.batch_size)


def _vllm(wanted: Wanted) -> Engine:
    from bitdistiller.generation.vllm_open import open_vllm

    return open_vllm(wanted)


ENGINES: dict[str, Callable[[Wanted], Engine]] = {"transformers": _transformers, "vllm": _vllm}
