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

import torch

from bitdistiller.errors import EXIT_RETRY, InputError

logger = logging.getLogger(__name__)

LAUNCHER = "BITDISTILLER_LAUNCHER"
GRACE_SECONDS = 60.0
TORCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def adopt_environment(environment: Mapping[str, str] | None = None) -> bool:
    """
    Whether this process is one of several that somebody else started: torchrun, this launcher, or a SLURM step.

    Of a SLURM step (srun with more than one task) the variables that torch.distributed wants are set from SLURM's by
    submitit, which also knows its own jobs.
    """
    given = os.environ if environment is None else environment
    if all(name in given for name in TORCH_VARIABLES):
        return int(given["WORLD_SIZE"]) > 1
    if "SLURM_STEP_ID" not in given or int(given.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return False
    from submitit.helpers import TorchDistributedEnvironment

    os.environ.setdefault("SUBMITIT_EXECUTOR", "slurm")
    os.environ.setdefault("MASTER_PORT", str(20_000 + hash_of_step(given) % 40_000))
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    return True


def hash_of_step(given: Mapping[str, str]) -> int:
    """A number that the steps of one job do not share; job ids count up, so do steps."""
    return int(given["SLURM_JOB_ID"]) * 97 + int(given["SLURM_STEP_ID"])


def wanted_processes(requested: int | None, engine: str) -> int:
    """
    How many processes to start here: as many as asked for, else one for every visible GPU, else one.

    Raises InputError when the engine `single` is to have several.
    """
    if engine == "single":
        if requested and requested > 1:
            raise InputError(
                f"--processes {requested}: the engine single is one process; accepted: ddp, fsdp, zero2, zero3"
            )
        return 1
    return requested or max(1, torch.cuda.device_count())


def start_processes(count: int, command: list[str] | None = None) -> int:
    """
    Run this command line as `count` processes on this machine; the exit code of the first that failed, else 0.

    SIGTERM and SIGUSR1 go on to all of them. When one fails, the others get GRACE_SECONDS to end by themselves.
    """
    base = {**os.environ, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), LAUNCHER: str(os.getpid())}
    base |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    base.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    command = command or [sys.executable, "-m", "bitdistiller", *sys.argv[1:]]
    children: list[subprocess.Popen] = []

    def forward(number: int, _: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        for rank in range(count):
            children.append(subprocess.Popen(command, env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)}))
        return _wait(children)
    finally:
        for child in children:
            child.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(children: list[subprocess.Popen]) -> int:
    failed_at, code = None, 0
    while any(child.poll() is None for child in children):
        failures = [child.returncode for child in children if child.returncode]
        if failures and failed_at is None:
            failed_at, code = time.monotonic(), failures[0]
        if failed_at is not None and time.monotonic() - failed_at > GRACE_SECONDS:
            logger.warning("one process ended with %d and the others do not; ending them", code)
            break
        time.sleep(0.1)
    codes = [child.returncode for child in children if child.returncode]
    worst = [code for code in codes if code > 0 and code != EXIT_RETRY] or codes
    return worst[0] if worst else 0


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
