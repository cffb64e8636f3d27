"""What can be seen on this machine, where Snakemake would run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bitdistiller.cluster.doctor.finding import Finding, error, ok, warning
from bitdistiller.cluster.doctor.machine import Machine
from bitdistiller.cluster.doctor.situation import Situation

PLUGIN = "snakemake-executor-plugin-slurm"
TRIED = "2.8.0"
"""The plugin's version that all this was measured with."""
PROCESSES_PER_JOB = 8
FILES_PER_JOB = 8
SPARE = 256


def check_plugin(situation: Situation) -> Iterator[Finding]:
    """Snakemake can be run here and has the plugin."""
    machine, how = situation.login, f"pip install {PLUGIN}=={TRIED}"
    if machine.python_problem:
        yield error("plugin", machine.python_problem, "give the Python that runs Snakemake by --python")
        return
    version = machine.versions.get(PLUGIN)
    if version is None:
        advice = f"make env-slurm and activate .venv-slurm, or {how}; --python names another Python"
        yield error("plugin", f"{PLUGIN} is not installed beside Snakemake", advice)
    elif f"{PLUGIN}-jobstep" not in machine.versions:
        yield error("plugin", f"{PLUGIN}-jobstep is not installed", f"pip install {PLUGIN}-jobstep")
    elif _numbers(version) < _numbers(TRIED):
        seen = f"{PLUGIN} {version}: older ones run GPU jobs several times over"
        yield warning("plugin", seen, how)
    else:
        yield ok("plugin", f"snakemake {machine.versions.get('snakemake')}, {PLUGIN} {version}")
    if situation.profile.keys.get("slurm-array-jobs"):
        seen = "slurm-array-jobs: one task's state is reported for all"
        yield error("profile", seen, "remove it from the profile")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def check_limits(situation: Situation) -> Iterator[Finding]:
    """Processes and open files suffice for the profile's number of jobs."""
    jobs = situation.profile.jobs
    yield from limits(situation.login, "limits", PROCESSES_PER_JOB * jobs + SPARE, FILES_PER_JOB * jobs + SPARE)


def limits(machine: Machine, name: str, processes: int, files: int) -> Iterator[Finding]:
    """The findings for a machine that should have so many."""
    found = {"-u": (machine.processes, processes), "-n": (machine.files, files)}
    low = [f"ulimit {flag} is {has}" for flag, (has, wanted) in found.items() if 0 <= has < wanted]
    shown = ", ".join(f"{flag} {'unlimited' if has < 0 else has}" for flag, (has, _) in found.items())
    if low:
        wishes = ", ".join(f"ulimit {flag} {wanted}" for flag, (has, wanted) in found.items() if 0 <= has < wanted)
        yield warning(name, f"{machine.host}: {', '.join(low)}", f"{wishes}, or fewer jobs at a time")
    else:
        yield ok(name, f"{machine.host}: ulimit {shown}")


def check_files(situation: Situation) -> Iterator[Finding]:
    """The experiment's local files can be read here, and its directories written."""
    yield files(situation.login)


def files(machine: Machine) -> Finding:
    """The finding for one machine."""
    if machine.unreadable:
        seen = f"{machine.host}: cannot read {_some(machine.unreadable)}"
        return error("files", seen, "correct the path in the experiment file, or put it on a disk all nodes share")
    if machine.unwritable:
        seen = f"{machine.host}: cannot write to {_some(machine.unwritable)}"
        return error("files", seen, "run from a directory on a disk that all nodes share and you may write to")
    return ok("files", f"{machine.host}: models and data can be read, results and work written")


def _some(paths: list[str]) -> str:
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
