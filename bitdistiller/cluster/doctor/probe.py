"""The probe: a small job that looks around on a compute node and answers questions of the login node by files."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bitdistiller.cluster.doctor.machine import Machine, Question, look
from bitdistiller.errors import InputError
from bitdistiller.stages.files import read_json, write_json, write_text

ROUNDS = 3
PATIENCE_SECONDS = 100.0
"""How long either side waits for a file of the other."""
SRUN_SECONDS = 60.0
KEPT = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME", "SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST")
"""What the plugin's jobstep leaves of SLURM's variables, outside of arrays."""


@dataclass(frozen=True)
class Gpus:
    """GPUs of a job, as PyTorch sees them."""

    count: int
    seen: str
    """One line: devices, or why there are none."""


@dataclass(frozen=True)
class Answer:
    """What a compute node says."""

    node: str
    machine: Machine
    srun_problem: str
    """Why srun does not work without SLURM_CONF; empty: it does."""
    lock: str
    """exclusive: a lock held on the login node is one here; shared: it is not; else why there are no locks."""
    requeue: bool | None
    """Whether SLURM would requeue this job; None where it does not say."""
    gpus: Gpus | None = None
    round_trip: float = 0.0
    """Seconds until a file of the login node was seen here and its answer there, the longest of several."""
    clock_skew: float = 0.0
    """Seconds that the node's clock is ahead."""


def run_probe(folder: Path) -> None:
    """Answer `folder/question.json`; raises InputError when it, or a later file of the login node, cannot be seen."""
    _await(folder / "question.json", lambda path: path.exists())
    asked = read_json(folder / "question.json")
    _play(folder)
    answer = Answer(
        node=os.environ.get("SLURMD_NODENAME", ""),
        machine=look(Question(**asked["question"])),
        srun_problem=srun_problem(),
        lock=lock_of(folder / "lock"),
        requeue=_requeue(),
        gpus=gpus() if asked["gpus"] else None,
    )
    write_json(folder / "answer.json", asdict(answer))


def _await(path: Path, condition: Callable[[Path], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition(path):
        if time.monotonic() > end:
            raise InputError(f"{path}: not seen on {os.uname().nodename} as it was written where the job is from")
        time.sleep(0.02)


def _play(folder: Path) -> None:
    """Answer each new content of `ping` with the same in `pong`, and the time here; both are replaced by renaming."""
    write_text(folder / "pong", f"-1 {time.time()}")
    for number in map(str, range(ROUNDS)):
        _await(folder / "ping", lambda path, number=number: path.exists() and path.read_text() == number)
        write_text(folder / "pong", f"{number} {time.time()}")


def srun_problem() -> str:
    """Start a step as the plugin's jobstep does, without SLURM_CONF; what srun says when it cannot."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SRUN_", "SBATCH_"))}
    kept |= {name: os.environ[name] for name in KEPT if name in os.environ}
    command = ["srun", "--overlap", "--ntasks=1", "true"]
    try:
        done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=SRUN_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    said = done.stderr.strip().splitlines()
    return (said[-1] if said else f"exit code {done.returncode}") if done.returncode else ""


def lock_of(path: Path) -> str:
    """Whether the lock that the login node holds is one here too: exclusive, shared, or the system's error."""
    try:
        with path.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "exclusive"
    except OSError as problem:
        return str(problem)
    return "shared"


def _requeue() -> bool | None:
    job = os.environ.get("SLURM_JOB_ID", "")
    try:
        done = subprocess.run(["scontrol", "show", "job", "-o", job], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"1": True, "0": False}.get(done.stdout.partition(" Requeue=")[2][:1])


def gpus() -> Gpus:
    """Ask PyTorch, in a process of its own: a broken driver may end it."""
    program = (
        "import json, torch; n = torch.cuda.device_count(); "
        "print(json.dumps([n, torch.__version__, [torch.cuda.get_device_name(i) for i in range(n)]]))"
    )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return Gpus(0, f"{said[-1] if said else f'exit code {done.returncode}'}; CUDA_VISIBLE_DEVICES {visible}")
    count, version, names = json.loads(done.stdout)
    return Gpus(count, f"torch {version}: {', '.join(names) or 'no device'}; CUDA_VISIBLE_DEVICES {visible}")


def read_answer(path: Path) -> Answer:
    """The answer in a file that `run_probe` wrote."""
    values = read_json(path)
    devices = values.pop("gpus")
    return Answer(
        **{**values, "machine": Machine(**values["machine"])}, gpus=None if devices is None else Gpus(**devices)
    )
