"""The login node's side of the probes: submit one job per partition, talk to it by files, wait for what it says."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from bitdistiller.cluster.attach import SubmittedJob
from bitdistiller.cluster.doctor.machine import Question
from bitdistiller.cluster.doctor.probe import PATIENCE_SECONDS, ROUNDS, Answer, read_answer
from bitdistiller.cluster.doctor.targets import Silence, Target, request_of
from bitdistiller.cluster.states import ENDED
from bitdistiller.cluster.submit import submit
from bitdistiller.errors import InputError
from bitdistiller.stages.files import write_json, write_text

LATE_SECONDS = 60.0
"""How long after its job has ended an answer may appear."""


Probes = dict[Target, Answer | Silence]


def probe_all(wanted: list[Target], question: Question, folder: Path, account: str | None, minutes: float) -> Probes:
    """Submit a probe to each target and wait for all of them, at most `minutes` for one to start."""
    probes = [_Probe(target, question, folder / f"{number}", account) for number, target in enumerate(wanted)]
    start_by = time.monotonic() + 60 * minutes
    while any(probe.outcome is None for probe in probes):
        for probe in probes:
            if probe.outcome is None:
                probe.step(start_by)
        time.sleep(0.05)
    return {probe.target: probe.outcome for probe in probes if probe.outcome is not None}


class _Probe:
    """One probe, from its submission to its answer; `step` never waits for long."""

    def __init__(self, target: Target, question: Question, folder: Path, account: str | None) -> None:
        self.target, self.folder = target, folder.absolute()
        self.outcome: Answer | Silence | None = None
        self.talk = _talk(self.folder)
        self._ask_at = 0.0
        self._ended_at: float | None = None
        write_json(self.folder / "question.json", {"question": asdict(question), "gpus": target.gpu})
        self._lock = (self.folder / "lock").open("a")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            submitted = submit(["probe", str(self.folder)], request_of(target, account), self.folder / "jobs", "slurm")
            self.job = SubmittedJob(submitted.job_id, self.folder / "jobs")
        except InputError as refused:
            self.outcome = Silence(str(refused), "correct partition, account or gpu_gres of the profile")

    def step(self, start_by: float) -> None:
        """Look once."""
        measured = next(self.talk, None)
        if measured is not None and (self.folder / "answer.json").exists():
            round_trip, skew = measured
            answer = read_answer(self.folder / "answer.json")
            self.outcome = replace(answer, round_trip=round_trip, clock_skew=skew)
        elif time.monotonic() > self._ask_at:
            self._ask_at = time.monotonic() + 2.0
            self._look_at_the_job(start_by)
        if self.outcome is not None:
            self._lock.close()

    def _look_at_the_job(self, start_by: float) -> None:
        state = self.job.state
        if state == "PENDING" and time.monotonic() > start_by:
            subprocess.run(["scancel", self.job.job_id], capture_output=True, timeout=60)
            advice = "give --patience more minutes, or --no-jobs to leave the compute nodes out"
            self.outcome = Silence(f"job {self.job.job_id} has not started", advice, waiting=True)
        elif state in {*ENDED, "FINISHED"}:
            self._ended_at = self._ended_at or time.monotonic()
            if time.monotonic() - self._ended_at > (1.0 if self.job.log.exists() else LATE_SECONDS):
                self.outcome = self._silence(state)
        else:
            self._ended_at = None

    def _silence(self, state: str) -> Silence:
        said = f"job {self.job.job_id} ended without an answer ({state})"
        if not self.job.log.exists():
            return Silence(f"{said} and without a log here", f"put {self.folder} on a disk that compute nodes share")
        text = self.job.log.read_text(errors="replace")
        if f"{sys.executable}: No such file" in text:
            advice = "put the environment on a disk that compute nodes share"
            return Silence(f"{said}: {sys.executable} is not there", advice)
        return Silence(f"{said}: {telling_line(text)}", f"its log: {self.job.log}")


def telling_line(log: str) -> str:
    """The first line that says what went wrong, else the last."""
    lines = log.strip().splitlines() or ["its log is empty"]
    telling = [line for line in lines if "error" in line.lower() and "Exited with exit code" not in line]
    return (telling or lines[-1:])[0]


def _talk(folder: Path) -> Iterator[tuple[float, float] | None]:
    """
    Write `ping` and wait for `pong`, ROUNDS times; None until then, afterwards the longest round trip and the skew.

    Ends when the other side has been silent for too long.
    """
    trips, skews = [], []
    while _pong(folder)[0] != -1:
        yield None
    for number in range(ROUNDS):
        begin, asked_at = time.monotonic(), time.time()
        write_text(folder / "ping", str(number))
        while (answer := _pong(folder))[0] != number:
            if time.monotonic() - begin > PATIENCE_SECONDS:
                return
            yield None
        trips.append(time.monotonic() - begin)
        skews.append(answer[1] - (asked_at + time.time()) / 2)
    while True:
        yield max(trips), skews[trips.index(min(trips))]


def _pong(folder: Path) -> tuple[int, float]:
    path = folder / "pong"
    if not path.exists():
        return -2, 0.0
    number, at = path.read_text().split()
    return int(number), float(at)
