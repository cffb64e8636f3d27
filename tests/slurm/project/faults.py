"""What can happen to the job of a running stage; each fault gets the project and the record of the attempt."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from pathlib import Path
from typing import Any

from slurm.project.project import Project
from slurm.rig.daemons import wait_until

MEGABYTE = 2**20
Attempt = dict[str, Any]


def cancel(project: Project, attempt: Attempt) -> None:
    """Somebody's scancel."""
    project.cluster.run(["scancel", attempt["job"]])


def kill(_: Project, attempt: Attempt) -> None:
    """What the kernel does to the largest process when memory is gone."""
    os.kill(attempt["pid"], signal.SIGKILL)


def limit_memory(_: Project, attempt: Attempt) -> None:
    """No more address space than the process has now, and a little."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        pages = int(Path(f"/proc/{attempt['pid']}/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 32 * MEGABYTE
        resource.prlimit(attempt["pid"], resource.RLIMIT_AS, (most, most))


def reach_walltime(project: Project, attempt: Attempt) -> None:
    """The job's time limit is now; the stage stands still until SLURM, which looks every 30 s, has noticed."""
    os.kill(attempt["pid"], signal.SIGSTOP)
    project.cluster.run(["scontrol", "update", f"JobId={attempt['job']}", "TimeLimit=0"])
    wait_until(lambda: not runs(attempt["pid"]), 120, "the end of a job at its time limit")


def preempt(project: Project, attempt: Attempt) -> None:
    """A job of a higher partition needs the whole node."""
    node = node_of(project, attempt)
    project.cluster.run(["sbatch", "-p", "high", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2"])


def lose_node(project: Project, attempt: Attempt) -> None:
    """The node and all that runs on it is gone; it is back once its job has been requeued."""
    cluster, node = project.cluster, node_of(project, attempt)
    cluster.crash(node)
    try:
        wait_until(lambda: node_of(project, attempt) != node, 120, "the job to leave its lost node")
    finally:
        cluster.start_node(node)


def restart_controller(project: Project, _: Attempt) -> None:
    """slurmctld is stopped in order and started again."""
    project.cluster.stop_controller()
    project.cluster.start_controller()


def fill_disk(project: Project, attempt: Attempt) -> None:
    """Not a byte is left on the project's file system until the attempt has ended."""
    filler = project.directory / "filler"
    with filler.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
        for size in (MEGABYTE, 4096, 1):
            with contextlib.suppress(OSError):
                while handle.write(bytes(size)) == size:
                    pass
    try:
        wait_until(lambda: not runs(attempt["pid"]), 300, "the attempt to meet the full disk")
    finally:
        filler.unlink()


def node_of(project: Project, attempt: Attempt) -> str:
    """Where the job of an attempt is now; empty while it is nowhere."""
    return next((job["node"] for job in project.cluster.jobs() if job["id"] == attempt["job"]), "")


def runs(pid: int) -> bool:
    """Whether a process is alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
