"""What every start of Snakemake goes through: its profile is there, it is alone, no dead one left its locks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bitdistiller.cluster.main_process import MainProcess, describe
from bitdistiller.errors import BitDistillerError, InputError, end_process
from bitdistiller.plan import Plan
from bitdistiller.recipes import load_experiment

SNAKEMAKE_LOCKS = Path(".snakemake") / "locks"
PROFILE = "--workflow-profile"


def left_locks() -> list[Path]:
    """Snakemake's own lock files in this working directory: of a main process that runs, or that was killed."""
    return sorted(SNAKEMAKE_LOCKS.glob("*.lock"))


def load_plan(workflow: Any, config: dict[str, Any]) -> Plan:
    """
    The plan of Snakemake's configuration, and a guard around its `workflow` in the main process.

    Bad input ends the process with one line and exit code 2. In the processes that Snakemake starts for its jobs
    nothing is checked or guarded.
    """
    try:
        plan = Plan(load_experiment(config))
        if workflow.is_main_process:
            check_profile(sys.argv, _profile_places(workflow))
            plan.check()
            guard(workflow, MainProcess(plan.results))
        return plan
    except InputError as error:
        end_process(error)


def guard(workflow: Any, lock: MainProcess) -> None:
    """
    Let Snakemake run jobs only as the one main process on its results.

    Dry runs and commands that run nothing take no lock; `snakemake --unlock` is refused while a main process lives.
    Errors meant for the user, from the lock or from the hooks, end the process with one line and their exit code; by
    then both our lock and Snakemake's are given back.
    """
    workflow.execute = partial(_execute_alone, workflow, workflow.execute, lock)
    workflow.unlock = partial(_unlock_the_dead, workflow.unlock, lock)


def _execute_alone(workflow: Any, execute: Callable[..., Any], lock: MainProcess, **arguments: Any) -> Any:
    if arguments["executor_plugin"].common_settings.dryrun_exec:
        return execute(**arguments)
    try:
        lock.acquire(partial(_refuse_left_locks, lock) if workflow.execution_settings.lock else lambda: None)
        try:
            return execute(**arguments)
        finally:
            lock.release()
    except BitDistillerError as error:
        end_process(error)


def _unlock_the_dead(unlock: Callable[[], Any], lock: MainProcess) -> Any:
    try:
        lock.forget_the_dead()
    except BitDistillerError as error:
        end_process(error)
    return unlock()


def _profile_places(workflow: Any) -> list[Path]:
    """Where Snakemake looks for a workflow profile: here, and in `profiles` here and beside the Snakefile."""
    here = Path(workflow.workdir_init)
    return [here, here / "profiles", Path(workflow.basedir) / "profiles"]


def _refuse_left_locks(lock: MainProcess) -> None:
    if left_locks():
        owner = lock.owner()
        who = f" ({describe(owner)})" if owner else ""
        raise InputError(
            f"the main process that ran here last{who} was killed; run `bitdistiller unlock`, then the same command"
        )


def check_profile(arguments: list[str], places: list[Path]) -> None:
    """Refuse a workflow profile that is not there, which Snakemake passes over in silence."""
    name = named_profile(arguments)
    if name is None or name == "none" or any((place / name).exists() for place in places):
        return
    known = sorted({path.name for place in places[1:] if place.is_dir() for path in place.iterdir() if path.is_dir()})
    raise InputError(f"{PROFILE} {name}: no such profile; accepted: {', '.join(known)}, or a path")


def named_profile(arguments: list[str]) -> str | None:
    """The workflow profile that a command line names."""
    for index, argument in enumerate(arguments):
        if argument == PROFILE:
            return arguments[index + 1] if index + 1 < len(arguments) else None
        if argument.startswith(f"{PROFILE}="):
            return argument.partition("=")[2]
    return None
