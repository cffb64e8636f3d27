"""The serving environment, stages that run in it, and models that vLLM's CPU kernels take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.serving import ENDS
from helpers.tiny import SENTENCES, write_model
from helpers.widened import widen_model

from bitdistiller.config import Mix
from bitdistiller.environments import SERVE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def serve_python() -> str:
    """The interpreter of the serving environment; stages with `engine: vllm` go on with it by themselves."""
    if SERVE.is_missing(ROOT):
        pytest.skip(f"no {SERVE.directory}; run `make {SERVE.target}`, or set {SERVE.variable}")
    return SERVE.python(ROOT)


@pytest.fixture(scope="session")
def ending_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with the end-of-sequence tokens ENDS in its generation defaults."""
    path = write_model(tmp_path_factory.mktemp("models") / "ending")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": ENDS, "pad_token_id": 0}))
    return path


@pytest.fixture(scope="session")
def stories_model(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TinyStories-656K, its heads of 16 channels made 32 wide."""
    return widen_model(test_data / "models" / "TinyStories-656K", tmp_path_factory.mktemp("models") / "stories")


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty prompts of many lengths."""
    texts = [sentence[: 4 + n] for n in range(10) for sentence in SENTENCES]
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="session")
def recipe(prompts_file: Path) -> Callable[..., Mix]:
    """`recipe(**generation)`: a mix of the forty prompts."""

    def make(**generation: Any) -> Mix:
        source = {"dataset": "prompts", "samples": 39, "prompts": 40, "path": prompts_file}
        settings = {"engine": "vllm", "max_new_tokens": 20, "max_prompt_tokens": 44, "batch_size": 16, **generation}
        return Mix(teacher="t", sources=[source], generation=settings)

    return make
