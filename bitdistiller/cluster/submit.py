"""Commands outside of the DAG as jobs: submitted through submitit, brought back under their id, found again later."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitdistiller.cluster.command import Command
from bitdistiller.cluster.request import PACKAGE, ExecutorName, Request, parameters
from bitdistiller.errors import InputError

SAVING_SHARE = 0.75
"""Part of the time between the warning and the end that a command has for saving, before it is killed."""


def default_executor() -> ExecutorName:
    """`slurm` where `sbatch` is on the PATH, else `local`."""
    return "slurm" if shutil.which("sbatch") else "local"


def submit(
    arguments: list[str],
    request: Request,
    folder: Path,
    executor: ExecutorName | None = None,
    module: str = "bitdistiller",
) -> Any:
    """
    Submit `python -m MODULE ARGUMENTS` and return submitit's job; its files are in `folder/JOB_ID`.

    With `debug` it runs in this process when the job's result is asked for. Raises InputError when the scheduler
    refuses.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    executor = executor or default_executor()
    _check(request, executor)
    command = make_command(arguments, request, executor, module)
    try:
        with _as_outside_of_jobs(executor):
            chosen = submitit.AutoExecutor(folder.absolute() / "%j", cluster=executor, **_limits(request, executor))
            chosen.update_parameters(**parameters(arguments, request, executor))
            return chosen.submit(command)
    except FailedJobError as error:
        raise InputError(f"sbatch refused the job: {' '.join(str(error).split())}") from None


def _check(request: Request, executor: ExecutorName) -> None:
    if executor == "slurm" and not shutil.which("sbatch"):
        raise InputError("--executor slurm: sbatch is not on the PATH; accepted here: local, debug")
    if executor != "slurm" and request.tasks > 1:
        raise InputError(f"--nodes, --tasks-per-node: {executor} jobs are one process; use --executor slurm")


def make_command(arguments: list[str], request: Request, executor: ExecutorName, module: str) -> Command:
    """The callable of a job that is submitted from here and now."""
    environment: dict[str, str | None] = {}
    if executor == "local":
        environment["CUDA_VISIBLE_DEVICES"] = _visible_gpus(request.gpus)
    return Command(
        arguments=arguments,
        directory=os.getcwd(),
        executor=executor,
        host=socket.gethostname(),
        tasks=request.tasks,
        grace_seconds=SAVING_SHARE * request.warning_seconds,
        environment=environment,
        module=module,
    )


def _visible_gpus(count: int | None) -> str | None:
    """The first `count` of this process's GPUs, or what it has; submitit would hide or renumber them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if count is None:
        return visible
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return ",".join(names[:count])


def _limits(request: Request, executor: ExecutorName) -> dict[str, int]:
    return {} if executor == "debug" else {f"{executor}_max_num_timeout": request.requeues}


@contextlib.contextmanager
def _as_outside_of_jobs(executor: ExecutorName) -> Iterator[None]:
    """
    While submitting: no variables of a job this process may be in, this package importable, and terminals outlived.

    SLURM_CONF stays. Ignored signals are inherited, so a local job sees neither Ctrl-C nor the end of the session.
    """
    ours = {name for name in os.environ if name.startswith(("SLURM_", "SLURMD_", "SUBMITIT_")) and name != "SLURM_CONF"}
    taken = {name: os.environ.pop(name) for name in ours}
    ignored = [signal.SIGINT, signal.SIGHUP] if executor == "local" else []
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    paths = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PACKAGE), *filter(None, [paths])])
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ.update(taken | ({"PYTHONPATH": paths} if paths is not None else {}))
        for number, handler in previous.items():
            signal.signal(number, handler)
