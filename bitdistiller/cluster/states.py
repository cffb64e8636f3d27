"""Where a submitted job stands: by SLURM's word, or by its process on this machine."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

GONE, UNKNOWN = "GONE", "UNKNOWN"
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT", GONE}
"""States that nothing follows. A preempted job that is queued again is PENDING."""
ASK_SECONDS = 30.0


def slurm_state(job: str) -> str:
    """
    SLURM's word for a job, such as RUNNING. GONE: it knows no such job any more; UNKNOWN: nobody answers.

    The controller is asked first, as accounting lags behind and may be absent; accounting only remembers how jobs
    ended that the controller has forgotten.
    """
    answer = _ask(["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"])
    if answer is None:
        return UNKNOWN
    words = answer.stdout.split()
    if words:
        return words[0]
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return UNKNOWN
    return _remembered(job)


def _remembered(job: str) -> str:
    answer = _ask(["sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job}", "--format=State"])
    words = answer.stdout.split() if answer else []
    return words[0] if words and words[0] in ENDED else GONE


def _ask(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None


def settled_slurm_state(job: str, seconds: float = 60.0) -> str:
    """The same, asked again for at most `seconds` while nobody answers."""
    end = time.monotonic() + seconds
    while (state := slurm_state(job)) == UNKNOWN and time.monotonic() < end:
        time.sleep(1.0)
    return state


def local_state(process: str, folder: Path) -> str:
    """RUNNING while process number `process` controls jobs of this folder, else GONE."""
    try:
        words = Path("/proc", process, "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return GONE
    return "RUNNING" if "submitit.local._local" in words and str(folder) in words else GONE
