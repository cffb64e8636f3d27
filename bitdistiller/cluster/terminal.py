"""Submitting and attaching on a terminal: what is shown, and with which exit code it ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

from bitdistiller.cluster.attach import SubmittedJob
from bitdistiller.cluster.request import ExecutorName, Request
from bitdistiller.cluster.submit import submit
from bitdistiller.errors import InputError

EXIT_DETACHED = 130


def checked(arguments: list[str] | None, known: set[str]) -> list[str]:
    """A command line without a leading `bitdistiller`; raises InputError when it is none of the `known` commands."""
    words = list(arguments or [])
    if words[:1] == ["bitdistiller"]:
        words = words[1:]
    accepted = ", ".join(sorted(known - {"submit"}))
    if not words:
        raise InputError(f"submit: no command; give one after `--`; accepted: {accepted}")
    if words[0] not in known - {"submit"}:
        raise InputError(f"submit: {words[0]!r} is no command; accepted: {accepted}")
    return words


def submit_and_show(arguments: list[str], request: Request, folder: Path, executor: str | None, *, wait: bool) -> int:
    """Submit; print the job's id, or follow it and return the command's exit code (`debug` always does)."""
    if executor is not None and executor not in get_args(ExecutorName):
        raise InputError(f"--executor {executor}: accepted: {', '.join(get_args(ExecutorName))}")
    job = submit(arguments, request, folder, cast("ExecutorName | None", executor))
    if executor == "debug":
        return int(job.result())
    if wait:
        return follow(job.job_id, folder)
    sys.stdout.write(f"{job.job_id}\n")
    sys.stderr.write(f"submitted; follow it with: bitdistiller submit --attach {job.job_id}{_folder(folder)}\n")
    return 0


def attach_to(job_id: str, folder: Path) -> int:
    """Say what a job is and where it stands, then follow it."""
    job = SubmittedJob(job_id, folder)
    sys.stderr.write(f"job {job_id} ({job.command.executor}): bitdistiller {shlex.join(job.command.arguments)}\n")
    sys.stderr.write(f"state: {job.state}; log: {job.log}\n")
    return follow(job_id, folder)


def follow(job_id: str, folder: Path, show: Callable[[str], object] | None = None) -> int:
    """Show the log until the job has ended; the command's exit code, or 130 after Ctrl-C, which the job outlives."""
    job = SubmittedJob(job_id, folder)
    try:
        return job.wait(show or _show)
    except KeyboardInterrupt:
        sys.stderr.write(f"\ndetached; back to it with: bitdistiller submit --attach {job_id}{_folder(folder)}\n")
        return EXIT_DETACHED


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _folder(folder: Path) -> str:
    return "" if folder == Path("work/submit") else f" --folder {folder}"
