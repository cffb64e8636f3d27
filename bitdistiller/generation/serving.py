"""vLLM lives in an environment of its own; a stage that wants it goes on there, as the same process."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from bitdistiller.environments import REPOSITORY, SERVE

logger = logging.getLogger(__name__)

ENTERED = "BITDISTILLER_SERVING"


def gpu_count() -> int:
    """CUDA devices that this process may use."""
    import torch

    return torch.cuda.device_count()


def enter(engine: str) -> None:
    """
    Run this command line in the serving environment where `engine` (auto or vllm) wants vLLM and it is not here.

    The process, its job and its signals stay the same. Does nothing where there is no such environment, and for `auto`
    where there is no GPU.
    """
    if engine == "transformers" or SERVE.is_here or SERVE.is_missing() or ENTERED in os.environ:
        return
    if engine == "auto" and not gpu_count():
        return
    python = SERVE.python()
    logger.info("going on with %s, for vLLM", python)
    sys.stderr.flush()
    os.execve(python, [python, "-m", "bitdistiller", *sys.argv[1:]], _environment(Path(python)))


def _environment(python: Path) -> dict[str, str]:
    """This process's environment with the interpreter's tools and this package in front."""
    inherited = os.environ.get("PYTHONPATH")
    packages = [str(REPOSITORY), *([inherited] if inherited else [])]
    paths = {"PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)])}
    return {**os.environ, **paths, "PYTHONPATH": os.pathsep.join(packages), ENTERED: "1"}
