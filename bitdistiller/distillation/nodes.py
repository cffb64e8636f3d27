"""One training on several nodes of a SLURM job: a step with a launcher on each; they meet before they start it."""

from __future__ import annotations

import datetime
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping

from bitdistiller.distillation import slurm_step
from bitdistiller.distillation.launcher import GRACE_SECONDS, Launcher
from bitdistiller.distillation.processes import (
    Place,
    free_port,
    start_at,
    start_processes,
    this_command,
    wanted_processes,
)
from bitdistiller.errors import EXIT_INPUT, EXIT_RETRY, InputError, TryAgain

logger = logging.getLogger(__name__)

IN_OUR_STEP = "BITDISTILLER_NODES"
OF_THE_JOB = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_CLUSTER_NAME")
MEETING_MINUTES = 10
WORST_CODE = 255


def start(requested: int | None, engine: str, nodes: int = 1) -> int | None:
    """
    Start the processes that train instead of this one, here or on `nodes` nodes of this job; their exit code together.

    None when this process is to train by itself. Raises InputError when the engine `single` is to have several, and
    TryAgain when the launchers do not find each other.
    """
    if nodes > 1 and engine == "single":
        raise InputError(f"--nodes {nodes}: the engine single is one process; accepted: ddp, fsdp, zero2, zero3")
    if slurm_step.tasks_are_launchers(os.environ):
        return _launch(requested, engine)
    found = nodes_here(nodes, os.environ) if nodes > 1 else 1
    if found > 1:
        return start_step(found)
    count = wanted_processes(requested, engine)
    return start_processes(count) if count > 1 else None


def start_step(nodes: int, command: list[str] | None = None) -> int:
    """
    Run this command line once on each of `nodes` nodes of this job; the exit code of all, as `verdict` has it.

    srun passes SIGUSR1 on to its tasks; SIGTERM would make it kill them.
    """
    environment = {**job_alone(os.environ), IN_OUR_STEP: str(nodes)}
    launcher = Launcher(srun(nodes) + (command or this_command()), [environment], passed_on=signal.SIGUSR1)
    return plain_code(launcher.run())


def job_alone(given: Mapping[str, str]) -> dict[str, str]:
    """An environment without what SLURM says of the step that this process is in, and what would shape another one."""
    strange = ("SLURM_", "SRUN_", "SLURMD_")
    return {name: value for name, value in given.items() if name in OF_THE_JOB or not name.startswith(strange)}


def srun(nodes: int) -> list[str]:
    """
    The start of a command line that runs once on each node, beside other steps of the job.

    A task that ends does not end the others at once: the first process may still be writing down how it ended. Those
    that do not end by themselves are ended after twice the launchers' own patience.
    """
    options = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap", "--cpu-bind=none"]
    options += ["--export=ALL", "--input=none", "--kill-on-bad-exit=0", f"--wait={int(2 * GRACE_SECONDS)}"]
    return ["srun", *options]


def nodes_here(wanted: int, given: Mapping[str, str]) -> int:
    """How many of the wanted nodes this job has; 1 outside of a SLURM job. Fewer than wanted are named in the log."""
    job, has_srun = given.get("SLURM_JOB_ID"), shutil.which("srun", path=given.get("PATH")) is not None
    found = min(wanted, _nodes_of(job, given)) if job and has_srun else 1
    if found < wanted:
        place = f"this job has {found}" if job else "this is no job of SLURM"
        machines = "this machine alone" if found == 1 else f"{found} nodes"
        logger.info("nodes: %d, but %s; training on %s", wanted, place, machines)
    return found


def _nodes_of(job: str, given: Mapping[str, str]) -> int:
    """Nodes of a job: of its variable, or asked of SLURM, as Snakemake's jobs come without it."""
    if "SLURM_JOB_NUM_NODES" in given:
        return int(given["SLURM_JOB_NUM_NODES"])
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%D"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return int(answer.stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise TryAgain(f"train: squeue did not say how many nodes job {job} has ({error})") from None


def _launch(requested: int | None, engine: str) -> int:
    """The launcher of one node."""
    if engine == "single":
        raise InputError(
            "training.engine: single is one process, this step has several nodes; accepted: ddp, fsdp, ..."
        )
    place, store = meet(wanted_processes(requested, engine))
    logger.info("ranks %d to %d of %d on this node", place.first, place.first + place.count - 1, place.size)
    code = start_at(place)
    del store  # the first node's holds what the others read
    return coded(code) if IN_OUR_STEP in os.environ else code


def meet(count: int) -> tuple[Place, object]:
    """
    Where this launcher's processes belong among all, and what has to live until the other launchers have read theirs.

    They meet at the first node of the job under a port that follows from the step; MASTER_ADDR and MASTER_PORT override
    either. Raises TryAgain.
    """
    step = slurm_step.described(os.environ)
    address, port = os.environ.get("MASTER_ADDR", step.master_addr), step.master_port
    logger.info("node %d of %d, meeting at %s:%d", step.rank + 1, step.world_size, address, port)
    try:
        return agree(address, port, step.rank, step.world_size, count)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise TryAgain(f"train: node {step.rank + 1} did not meet the others at {address}:{port} ({reason})") from None


def agree(address: str, port: int, node: int, nodes: int, count: int) -> tuple[Place, object]:
    """
    Tell the other launchers how many processes this one starts, and learn theirs and the port of the first process.

    Raises RuntimeError (of torch.distributed) when one does not come within MEETING_MINUTES.
    """
    from torch.distributed import TCPStore

    patience = datetime.timedelta(minutes=MEETING_MINUTES)
    store = TCPStore(address, port, nodes, is_master=node == 0, timeout=patience)
    store.set(f"processes of node {node}", str(count))
    if node == 0:
        store.set("port", str(free_port("")))
    counts = [int(store.get(f"processes of node {other}")) for other in range(nodes)]
    return Place(sum(counts[:node]), count, sum(counts), address, int(store.get("port"))), store


def coded(code: int) -> int:
    """
    The exit code of a launcher in a step of ours.

    Of several tasks srun returns the highest code, so they rise as in `verdict`: success, "go on later", a failure, a
    process that a signal killed, bad input.
    """
    if code == EXIT_INPUT:
        return WORST_CODE
    return EXIT_RETRY + min(code, 50) if 0 < code < 128 and code != EXIT_RETRY else code


def plain_code(code: int) -> int:
    """What the code that srun returned meant before `coded`."""
    if code == WORST_CODE:
        return EXIT_INPUT
    return code - EXIT_RETRY if EXIT_RETRY < code <= EXIT_RETRY + 50 else code
