"""Commands in processes of their own, to be watched and killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TOY_STAGE = Path(__file__).with_name("toy_stage.py")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with as many arithmetic threads as torch uses here, so that results are equal."""
    torch = sys.modules.get("torch")
    threads = str(torch.get_num_threads()) if torch else os.environ.get("OMP_NUM_THREADS", "1")
    return {**os.environ, "OMP_NUM_THREADS": threads, **changes}


def start(*command: object, **changes: str) -> subprocess.Popen[str]:
    """`python COMMAND...` in the background, its two streams captured together."""
    arguments = [sys.executable, *map(str, command)]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(**changes)
    )


def finish(process: subprocess.Popen[str], seconds: float = 120.0) -> tuple[int, str]:
    """Exit code (negative: the signal's number) and output of a process, killed when it takes too long."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"still running after {seconds} s: {output}") from None
    return process.returncode, output


def run(*command: object, **changes: str) -> tuple[int, str]:
    """`python COMMAND...` to its end."""
    return finish(start(*command, **changes))


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 60.0
) -> None:
    """Poll until the condition holds; fails when the process ends before, or after `seconds`."""
    begin = time.monotonic()
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"the process ended first ({process.returncode}): {process.communicate()[0]}")
        if time.monotonic() - begin > seconds:
            raise AssertionError(f"waited {seconds} s in vain")
        time.sleep(0.005)
