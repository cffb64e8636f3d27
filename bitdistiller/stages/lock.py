"""The run lock: two processes never write to one work directory, on one host or on many."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bitdistiller.errors import EXIT_RETRY, LockHeld

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 90.0
WAIT_SECONDS = 600.0
UNREADABLE = {"token": "unreadable", "host": "unknown", "pid": -1, "machine": "unreadable"}


def _start_time(pid: int) -> str | None:
    """Kernel start time of a process (field 22 of /proc/PID/stat), which tells a reused pid; None when it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] != "Z":
            return fields[19]
    return None


def _machine() -> str:
    """This kernel and pid namespace: inside it, a pid can be looked up."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def user_name() -> str:
    """The user of this process; the number of one without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def job_id() -> str | None:
    """The scheduler's id of this job, if there is one."""
    return os.environ.get("SLURM_JOB_ID")


def is_local(owner: dict[str, Any]) -> bool:
    """Whether the process of an owner can be looked up from here."""
    return owner.get("machine") == _machine()


def runs_here(owner: dict[str, Any]) -> bool:
    """Whether an owner's process is on this machine and has not ended."""
    return is_local(owner) and _start_time(int(owner["pid"])) == owner["start_time"]


class RunLock:
    """
    A lock file with owner and heartbeat.

    An owner on this machine that is dead, or one elsewhere whose heartbeat has not moved for `stale` seconds, loses
    the lock. A live owner is waited for, at most `wait` seconds.
    """

    def __init__(self, directory: Path, wait: float = WAIT_SECONDS, stale: float = STALE_SECONDS) -> None:
        self.path = directory / "lock.json"
        self.guard = directory / "lock.guard"
        self.wait, self.stale = wait, stale
        self.token = uuid.uuid4().hex
        self.beats = 0
        self._stop = threading.Event()

    def acquire(self, check: Callable[[], None] = lambda: None) -> None:
        """
        Take the lock; raises LockHeld (exit code 75) when a live owner keeps it longer than `wait` seconds.

        `check` is called while waiting and may raise to end it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        begin = seen_at = time.monotonic()
        seen: dict[str, Any] | None = None
        while not self._try_take(seen, time.monotonic() - seen_at):
            owner = self._read()
            if owner != seen:
                if seen is None and owner:
                    logger.info("waiting for %s, which works here: %s", self._name(owner), self.path.parent)
                seen, seen_at = owner, time.monotonic()
            if time.monotonic() - begin > self.wait:
                raise LockHeld(f"{self.path.parent}: {self._name(owner)} works here; try again when it has ended")
            time.sleep(min(0.5, self.wait / 4 + 0.01))
            check()
        self._start_beating()

    def owner(self) -> dict[str, Any] | None:
        """Who has the lock, dead or alive: user, host, pid, job and more; None when nobody has."""
        return self._read()

    def release(self) -> None:
        """Give the lock back if it is still ours."""
        self._stop.set()
        with self._guarded():
            if (self._read() or {}).get("token") == self.token:
                self.path.unlink(missing_ok=True)

    def _try_take(self, seen: dict[str, Any] | None, unchanged_seconds: float) -> bool:
        with self._guarded():
            owner = self._read()
            if owner is not None and not self._is_dead(owner, seen, unchanged_seconds):
                return False
            self._write()
            return True

    def _is_dead(self, owner: dict[str, Any], seen: dict[str, Any] | None, unchanged_seconds: float) -> bool:
        if is_local(owner):
            return not runs_here(owner)
        return owner == seen and unchanged_seconds > self.stale

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with self.guard.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, Any] | None:
        try:
            return json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, OSError):
            return UNREADABLE

    def _write(self) -> None:
        self.beats += 1
        owner = {
            "token": self.token,
            "user": user_name(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "start_time": _start_time(os.getpid()),
            "job": job_id(),
            "beats": self.beats,
        }
        temporary = self.path.with_name(f".lock-{self.token}")
        temporary.write_text(json.dumps(owner))
        os.replace(temporary, self.path)

    def _start_beating(self) -> None:
        threading.Thread(target=self._beat, daemon=True, name="lock-heartbeat").start()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError), self._guarded():
                if self._stop.is_set():
                    return
                owner = self._read() or {}
                if owner == UNREADABLE:
                    continue
                if owner.get("token") != self.token:
                    logger.critical("lost the lock of %s to another process; stopping", self.path.parent)
                    os._exit(EXIT_RETRY)
                self._write()

    @staticmethod
    def _name(owner: dict[str, Any] | None) -> str:
        owner = owner or {}
        job = f", job {owner['job']}" if owner.get("job") else ""
        return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}{job}"
