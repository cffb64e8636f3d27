"""How many processes train together: found in the environment, or started here."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from types import FrameType

from bitdistiller.errors import EXIT_INPUT, EXIT_RETRY, InputError

logger = logging.getLogger(__name__)

LAUNCHER = "BITDISTILLER_LAUNCHER"
GRACE_SECONDS = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
TORCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def adopt_environment(environment: Mapping[str, str] | None = None) -> bool:
    """
    Whether this process is one of several that somebody else started: torchrun, this launcher, or a SLURM step.

    Of a SLURM step (srun with more than one task) the variables that torch.distributed wants are set from SLURM's by
    submitit.
    """
    given = os.environ if environment is None else environment
    if all(name in given for name in TORCH_VARIABLES):
        return int(given["WORLD_SIZE"]) > 1
    if "SLURM_STEP_ID" not in given or int(given.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return False
    from submitit.helpers import TorchDistributedEnvironment

    os.environ.setdefault("SUBMITIT_EXECUTOR", "slurm")
    os.environ.setdefault("MASTER_PORT", str(step_port(given)))
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    return True


def step_port(given: Mapping[str, str]) -> int:
    """A port that all tasks of a SLURM step come to and other steps hardly do, as jobs and steps are counted up."""
    return 20_000 + (int(given["SLURM_JOB_ID"]) * 97 + int(given["SLURM_STEP_ID"])) % 40_000


def wanted_processes(requested: int | None, engine: str) -> int:
    """
    How many processes to start here: as many as asked for, else one for every visible GPU, else one.

    Raises InputError when the engine `single` is to have several.
    """
    if requested is not None and requested < 1:
        raise InputError(f"--processes {requested}: accepted: 1 or more")
    if engine == "single":
        if requested and requested > 1:
            raise InputError(
                f"--processes {requested}: the engine single is one process; accepted: ddp, fsdp, zero2, zero3"
            )
        return 1
    return requested or visible_gpus()


def visible_gpus() -> int:
    """GPUs that this process may use; 1 where there is none."""
    import torch  # takes seconds, which the launcher saves when it is told the number

    return max(1, torch.cuda.device_count())


def start_processes(count: int, command: list[str] | None = None) -> int:
    """
    Run this command line as `count` processes on this machine; the exit code of all together: see `verdict`.

    SIGTERM and SIGUSR1 go on to all of them. When one fails, the others get GRACE_SECONDS to end by themselves.
    """
    return Launcher(count, command or [sys.executable, "-m", "bitdistiller", *sys.argv[1:]]).run()


class Launcher:
    """`count` processes with one command line, as long as they run."""

    def __init__(self, count: int, command: list[str]) -> None:
        self.count, self.command = count, command
        self.children: list[subprocess.Popen] = []
        self.received: int | None = None

    def run(self) -> int:
        """Start them, wait for them, leave none behind."""
        previous = {number: signal.signal(number, self._forward) for number in SIGNALS}
        try:
            self._start()
            return verdict(self._wait(), self.received)
        finally:
            for child in self.children:
                child.kill()
                child.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _start(self) -> None:
        count = self.count
        base = {**os.environ, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), LAUNCHER: str(os.getpid())}
        base |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        base.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            self.children.append(subprocess.Popen(self.command, env={**base, **own}))
            if self.received is not None:  # it came before this child
                self.children[-1].send_signal(self.received)

    def _forward(self, number: int, _: FrameType | None) -> None:
        self.received = number
        for child in self.children:
            child.send_signal(number)

    def _wait(self) -> list[int]:
        """Exit codes of the children that ended by themselves, by rank."""
        failed_at = None
        while None in (codes := [child.poll() for child in self.children]):
            failures = [code for code in codes if code]
            if failures and failed_at is None:
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > GRACE_SECONDS:
                logger.warning("one process ended with %d and the others do not; ending them", failures[0])
                break
            time.sleep(0.1)
        return [child.returncode for child in self.children if child.returncode is not None]


def verdict(codes: list[int], received: int | None = None) -> int:
    """
    One exit code for all processes: bad input (2) wins, then a failure, then "go on later" (75), then success.

    codes: as subprocess gives them, -n for a process that signal n killed (here 128 + n, as in a shell). Where the
    launcher received a signal that killed a process before it could listen, nothing was lost: 75.
    """
    if EXIT_INPUT in codes:
        return EXIT_INPUT
    if received is not None and -received in codes:
        return EXIT_RETRY
    failures = [code for code in codes if code not in (0, EXIT_RETRY)]
    killed = [128 - code for code in failures if code < 0]
    failed = [code for code in failures if code > 0]
    return (killed + failed + [EXIT_RETRY] * (EXIT_RETRY in codes) + [0])[0]


def follow_launcher() -> None:
    """Ask the kernel to send this process SIGTERM when the launcher that started it dies."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or not sys.platform.startswith("linux"):
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != int(launcher):
        os.kill(os.getpid(), signal.SIGTERM)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
