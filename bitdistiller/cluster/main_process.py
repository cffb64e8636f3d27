"""One main process of Snakemake at a time on one results directory, and one line for the second."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bitdistiller.errors import InputError
from bitdistiller.plan import main_process_directory
from bitdistiller.stages.lock import STALE_SECONDS, RunLock, is_local, user_name


class MainProcess(RunLock):
    """
    The lock of the main process on a results directory; nobody waits for it.

    Its owner is dead when its process is gone from this machine, or when, elsewhere, it has not renewed the lock for
    `stale` seconds by the file system's clock. Whoever may write to the results may take the lock of a dead owner.
    """

    def __init__(self, results: Path, stale: float = STALE_SECONDS) -> None:
        super().__init__(main_process_directory(results), wait=0.0, stale=stale)
        self.results = results

    def acquire(self, check: Callable[[], None] = lambda: None) -> None:
        """Take the lock after `check`; raises InputError with one line for a live owner and for missing rights."""
        with self._explained(), self.exclusive():
            self.refuse_a_live_owner()
            check()
            self._write()
        self._start_beating()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else takes or looks at the lock within the block."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _share(self.path.parent, self.results)
        with self._guarded():
            _share(self.guard, self.results)
            yield

    def refuse_a_live_owner(self) -> None:
        """Raise InputError where another process has the lock and is not known to be dead."""
        owner = self.owner()
        if owner is not None and not self._is_dead(owner, None, 0.0):
            raise InputError(
                f"{self.results}: {describe(owner)} runs this workflow here, and only one at a time may; "
                f"wait until it has ended, or stop it{self._last_sign(owner)}"
            )

    def forget_the_dead(self, then: Callable[[], None] = lambda: None) -> dict[str, Any] | None:
        """Remove the lock of a dead owner, and call `then` before anyone else can take it; returns the owner."""
        with self._explained(), self.exclusive():
            self.refuse_a_live_owner()
            owner = self.owner()
            self.path.unlink(missing_ok=True)
            then()
            return owner

    def _is_dead(self, owner: dict[str, Any], seen: dict[str, Any] | None, unchanged_seconds: float) -> bool:
        return super()._is_dead(owner, seen, 0.0) if is_local(owner) else self._silent_seconds() > self.stale

    def _silent_seconds(self) -> float:
        """Time since the lock was renewed, both moments taken from the file system, whatever this host's clock says."""
        os.utime(self.guard)
        return self.guard.stat().st_mtime - self.path.stat().st_mtime

    def _last_sign(self, owner: dict[str, Any]) -> str:
        if is_local(owner):
            return ""
        seconds = max(self._silent_seconds(), 0.0)
        return f" (its last sign of life is {seconds:.0f} s old; after {self.stale:.0f} s it counts as dead)"

    def _write(self) -> None:
        super()._write()
        _share(self.path, self.results)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            owner, place = self.owner(), error.filename or self.path.parent
            held = f"; {describe(owner)} holds it" if owner else ""
            raise InputError(
                f"{place}: {error.strerror} for user {user_name()}{held}; a results directory that several users share "
                f"must be writable for their group ({_owner_and_mode(self.results)})"
            ) from None


def describe(owner: dict[str, Any]) -> str:
    """Process, user and host of a lock's owner, for a line to the user."""
    if owner["pid"] < 0:
        return "the main process of another user, whose lock cannot be read,"
    user = f" of {owner['user']}" if owner.get("user") else ""
    return f"process {owner['pid']}{user} on {owner['host']}"


def _owner_and_mode(path: Path) -> str:
    if not path.exists():
        return f"{path} is not there yet"
    mode = f"mode {path.stat().st_mode & 0o7777:o}"
    with contextlib.suppress(KeyError):
        return f"{path} is {path.owner()}'s, {mode}"
    return f"{path} is of user {path.stat().st_uid}, {mode}"


def _share(path: Path, results: Path) -> None:
    """Give a file or folder the rights of the results directory, whatever the umask."""
    mode = results.stat().st_mode & (0o7777 if path.is_dir() else 0o666)
    if path.stat().st_mode & 0o7777 != mode:
        with contextlib.suppress(PermissionError):
            path.chmod(mode)
