"""Several processes that train together, forked from a server that has imported everything: no start-up each time."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

PRELOADED = (
    "bitdistiller.distillation.stage",
    "transformers.models.llama.modeling_llama",
    "deepspeed",
    "torchao.optim",
)
Work = Callable[[], None]


class Ranks:
    """Processes with the environment of torchrun, each running the same command line; their output is in `log`."""

    def __init__(self, command: Sequence[object], count: int, log: Path, patch: Work | None = None) -> None:
        """`patch` (a function of a module) is called in every process before the command."""
        from bitdistiller.distillation.processes import free_port

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        self.log = log
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "CUDA_VISIBLE_DEVICES": ""}
        self.processes: list[ForkServerProcess] = []
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)} if count > 1 else {}
            arguments = (list(map(str, command)), {**common, **own}, log, patch)
            self.processes.append(context.Process(target=_run, args=arguments))
        for process in self.processes:
            process.start()

    def signal(self, rank: int, number: int) -> None:
        """Send a signal to one process."""
        os.kill(self.processes[rank].pid, number)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Poll until the condition holds while all processes live."""
        begin = time.monotonic()
        while not condition():
            assert all(process.is_alive() for process in self.processes), self.log.read_text()
            assert time.monotonic() - begin < seconds, self.log.read_text()
            time.sleep(0.005)

    def finish(self, seconds: float = 180.0) -> tuple[list[int | None], str]:
        """Exit codes by rank and everything written; processes that hang are killed and fail the test."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        hanging = [process for process in self.processes if process.is_alive()]
        for process in hanging:
            process.kill()
            process.join()
        assert not hanging, f"still running after {seconds} s: {self.log.read_text()}"
        return [process.exitcode for process in self.processes], self.log.read_text()


def run(command: Sequence[object], count: int, log: Path, patch: Work | None = None) -> tuple[list[int | None], str]:
    """`bitdistiller COMMAND...` by `count` processes to their end: exit codes and output."""
    return Ranks(command, count, log, patch).finish()


def _run(command: list[str], environment: Mapping[str, str], log: Path, patch: Work | None) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.environ.update(environment)
    sys.argv = ["bitdistiller", *command]
    if patch is not None:
        patch()
    from bitdistiller.cli import main

    main()
