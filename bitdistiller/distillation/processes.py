"""How many processes train together: found in the environment, or started here."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from bitdistiller.distillation import slurm_step
from bitdistiller.distillation.launcher import Launcher
from bitdistiller.errors import InputError
from bitdistiller.stages.parent import signal_when_parent_dies

LAUNCHER = "BITDISTILLER_LAUNCHER"
TORCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """What a launcher starts: ranks `first` to `first + count - 1` of `size`, which meet at `address` and `port`."""

    first: int
    count: int
    size: int
    address: str
    port: int

    def environments(self) -> list[dict[str, str]]:
        """The environment of each process, on top of this one's."""
        common = {"WORLD_SIZE": str(self.size), "LOCAL_WORLD_SIZE": str(self.count), LAUNCHER: str(os.getpid())}
        common |= {"MASTER_ADDR": self.address, "MASTER_PORT": str(self.port)}
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.count))}
        ranks = [{"RANK": str(self.first + local), "LOCAL_RANK": str(local)} for local in range(self.count)]
        return [{**threads, **os.environ, **common, **own} for own in ranks]


def adopt_environment(environment: Mapping[str, str] | None = None) -> bool:
    """
    Whether this process is one of several that somebody else started: torchrun, a launcher, or a SLURM step.

    Of a SLURM step with several tasks on a node, the variables that torch.distributed wants are set from SLURM's by
    submitit. Of a step with one task on each node every task is a launcher: see `nodes`.
    """
    given = os.environ if environment is None else environment
    if all(name in given for name in TORCH_VARIABLES):
        return int(given["WORLD_SIZE"]) > 1
    if not slurm_step.tasks_are_processes(given):
        return False
    slurm_step.described(given).export(set_cuda_visible_devices=False, overwrite=True)
    return True


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
    """Run this command line as `count` processes on this machine; the exit code of all together."""
    return start_at(Place(0, count, count, "127.0.0.1", free_port()), command)


def start_at(place: Place, command: list[str] | None = None) -> int:
    """Run this command line as the processes of a place; the exit code of all together."""
    return Launcher(command or this_command(), place.environments()).run()


def this_command() -> list[str]:
    """The command line of this process, to be run again."""
    return [sys.executable, "-m", "bitdistiller", *sys.argv[1:]]


def follow_launcher() -> None:
    """Ask the kernel to send this process SIGTERM when the launcher that started it dies."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or not sys.platform.startswith("linux"):
        return
    signal_when_parent_dies(signal.SIGTERM)
    if os.getppid() != int(launcher):
        os.kill(os.getpid(), signal.SIGTERM)


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port of this machine that nobody listens on; address "": on none of its interfaces."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
