"""The stage `cache-teacher` as a process that kills itself: AFTER MODEL TOKENS OUTPUT (AFTER chunks are durable)."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from bitdistiller.config import CacheRecipe
from bitdistiller.distillation.cache import stage


def die_after(chunks: int) -> None:
    """Kill this process in the middle of the chunk after `chunks` of them."""
    write, written = stage.write_chunk, []

    def doomed(path: Path, *arguments: object) -> None:
        if len(written) == chunks:
            path.with_name(f".{path.name}.tmp-1-half").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, *arguments)
        written.append(path)

    stage.write_chunk = doomed


if __name__ == "__main__":
    after, model, tokens, output = sys.argv[1:]
    die_after(int(after))
    recipe = CacheRecipe(precision="float32", batch_tokens=64)
    paths = {"model": Path(model), "tokens": Path(tokens), "output": Path(output), "work": None}
    stage.run(recipe, shard=0, shards=1, time_budget=None, **paths)
