"""What the tests of the vLLM engine look at, in one process of the serving environment: `vllm_cases.py MODEL OUT`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bitdistiller.errors import InputError
from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.engines import Wanted
from bitdistiller.generation.placement import Placement
from bitdistiller.generation.vllm_engine import VllmEngine
from bitdistiller.generation.vllm_open import copies

PROMPTS = [f"The {animal} ran over the {place}" for animal in ("cat", "dog", "bird") for place in ("hill", "old mat")]
SEEDS = [2**62 + index for index in range(len(PROMPTS))]
WARM = Sampling(max_new_tokens=24, temperature=0.9, top_p=0.95)


def main(model: Path, out: Path) -> None:
    """Write the completions of every case."""
    wanted = Wanted(model, "float32", longest=60)
    engine = VllmEngine(wanted)
    cases: dict[str, Any] = {
        "whole": lines(engine.complete(PROMPTS, SEEDS, WARM)),
        "again": lines(engine.complete(PROMPTS, SEEDS, WARM)),
        "one by one": [
            lines(engine.complete([prompt], [seed], WARM))[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
        ],
        "other seeds": lines(engine.complete(PROMPTS, [seed + 1 for seed in SEEDS], WARM)),
        "refused": refusal(engine, PROMPTS[:1], Sampling(max_new_tokens=60)),
        "no room": refusal(engine, ["x" * 300], WARM),
        "context": engine.context,
    }
    cases["two copies"] = lines(copies(wanted, Placement(1, 2)).complete(PROMPTS, SEEDS, WARM))
    out.write_text(json.dumps(cases))


def lines(completions: Any) -> list[dict[str, Any]]:
    """Completions as JSON."""
    return [asdict(completion) for completion in completions]


def refusal(engine: VllmEngine, prompts: list[str], sampling: Sampling) -> str:
    """What an impossible call is told."""
    try:
        engine.complete(prompts, [0] * len(prompts), sampling)
    except InputError as error:
        return str(error)
    return "not refused"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
