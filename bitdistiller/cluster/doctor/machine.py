"""What this machine has, seen from inside: the same look on the login node and on a compute node."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("snakemake", "snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep")
PYTHON_SECONDS = 120.0
_LOOK = f"""
import json, sys
import snakemake
from importlib import metadata
found = {{}}
for name in {PACKAGES!r}:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
sys.stdout.write(json.dumps(found))
"""


@dataclass(frozen=True)
class Question:
    """What to look for."""

    python: str
    """The interpreter that runs Snakemake."""
    files: tuple[str, ...] = ()
    """Files that jobs read."""
    directories: tuple[str, ...] = ()
    """Directories that jobs write to."""
    tools: tuple[str, ...] = ()
    """Programs that jobs call."""


@dataclass(frozen=True)
class Machine:
    """What was found; empty texts and lists are good news."""

    host: str
    processes: int
    """`ulimit -u`, -1 without a limit."""
    files: int
    """`ulimit -n`, -1 without a limit."""
    python_problem: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    """Of PACKAGES, those that the interpreter has."""
    unreadable: list[str] = field(default_factory=list)
    unwritable: list[str] = field(default_factory=list)
    missing_tools: list[str] = field(default_factory=list)


def look(question: Question) -> Machine:
    """Look around here."""
    problem, versions = ask_python(question.python)
    return Machine(
        host=socket.gethostname(),
        processes=_limit(resource.RLIMIT_NPROC),
        files=_limit(resource.RLIMIT_NOFILE),
        python_problem=problem,
        versions=versions,
        unreadable=[path for path in question.files if not os.access(path, os.R_OK)],
        unwritable=[path for path in question.directories if not is_writable(Path(path))],
        missing_tools=[tool for tool in question.tools if shutil.which(tool) is None],
    )


def ask_python(python: str) -> tuple[str, dict[str, str]]:
    """Why an interpreter cannot run Snakemake here (empty: it can), and the versions it has of PACKAGES."""
    try:
        answer = subprocess.run([python, "-c", _LOOK], capture_output=True, text=True, timeout=PYTHON_SECONDS)
    except FileNotFoundError:
        return f"{python}: no such file", {}
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"{python}: {problem}", {}
    if answer.returncode:
        said = answer.stderr.strip().splitlines()
        return f"{python}: {said[-1] if said else f'exit code {answer.returncode}'}", {}
    return "", json.loads(answer.stdout)


def is_writable(directory: Path) -> bool:
    """Whether a file can be made in a directory, or in the one that it would be made in."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _limit(kind: int) -> int:
    soft, _ = resource.getrlimit(kind)
    return -1 if soft == resource.RLIM_INFINITY else soft
