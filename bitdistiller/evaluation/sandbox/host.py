"""The trusted side of the sandbox: starts a confined process for each program and listens to it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bitdistiller.evaluation.sandbox.outcome import READY, Outcome, judge

CHILD = Path(__file__).with_name("child")
MECHANISMS = ("namespaces", "landlock")
DEVICES = ("/dev/null", "/dev/urandom")
STARTUP_SECONDS = 60.0
GRACE_SECONDS = 1.0
LONGEST_REPORT = 65536

SELF_TEST = """
import os, socket

def denied(action):
    try:
        action()
    except OSError:
        return True
    return False

def send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", ("127.0.0.1", 9))

assert denied(lambda: open({canary!r})), "a file outside could be read"
assert denied(lambda: open({canary!r} + ".new", "w")), "a file outside could be written"
assert denied(send), "the network could be reached"
assert not os.environ, "the environment could be seen"
with open("inside", "w") as handle:
    handle.write("text")
"""


@dataclass(frozen=True)
class Unavailable:
    """Why programs cannot be run safely on this machine."""

    reason: str


@dataclass(frozen=True)
class Sandbox:
    """
    Runs Python programs that nobody has read: standard library only, nothing but one empty folder to write to, no
    network, no other files or processes in reach, no environment, limits on time, memory and file size.

    `mechanism` is `namespaces` (Linux namespaces: everything else is absent) or `landlock` (everything else is
    forbidden). `filter_calls` adds the system call filter, which also allows only one process; Landlock needs it.
    """

    mechanism: str
    filter_calls: bool = True
    scratch_mb: int = 64
    file_mb: int = 32
    processes: int = 16

    @classmethod
    def probe(cls) -> Sandbox | Unavailable:
        """The first mechanism that keeps its promises in a harmless trial run on this machine, or the reasons."""
        reasons = []
        for mechanism in MECHANISMS:
            sandbox = cls(mechanism)
            outcome = sandbox.self_test()
            if outcome.passed:
                return sandbox
            reasons.append(f"{mechanism}: {outcome.detail or outcome.status}")
        return Unavailable("no isolation works on this machine (" + "; ".join(reasons) + ")")

    def self_test(self) -> Outcome:
        """Run a program that checks from within that files, network and environment are out of reach."""
        with tempfile.NamedTemporaryFile() as canary:
            os.chmod(canary.name, 0o644)
            return self.run(SELF_TEST.format(canary=canary.name), timeout=20.0)

    def run(self, program: str, checks: str = "", timeout: float = 10.0, memory_mb: int = 512) -> Outcome:
        """
        Run `program`, then `checks` in the same module; passed when neither raised.

        timeout: seconds of wall and of processor time, from the first line of the program; memory_mb: MiB of address
        space. Never raises for anything the program does.
        """
        token = secrets.token_hex(16).encode()
        with contextlib.ExitStack() as stack:
            scratch = ""
            if self.mechanism == "landlock":
                scratch = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            request = stack.enter_context(tempfile.TemporaryFile())
            request.write(self._request([program, checks], scratch, timeout, memory_mb))
            request.seek(0)
            token_end, token_start = stack.enter_context(_pipe())
            token_start.write(token)
            verdict_end, verdict_start = stack.enter_context(_pipe())
            process = stack.enter_context(_started(request, token_end, verdict_start))
            verdict_start.close()
            said, late = _listen(verdict_end, timeout)
            if not late and len(said) < LONGEST_REPORT:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
        return judge(said, token, process.returncode, late)

    def _request(self, parts: list[str], scratch: str, timeout: float, memory_mb: int) -> bytes:
        request = {
            "mechanism": self.mechanism,
            "filter_calls": self.filter_calls,
            "devices": [path for path in DEVICES if os.path.exists(path)],
            "scratch": scratch,
            "scratch_mb": self.scratch_mb,
            "file_mb": self.file_mb,
            "processes": self.processes,
            "timeout": timeout,
            "memory_mb": memory_mb,
            "parent": os.getpid(),
            "parts": parts,
        }
        return json.dumps(request).encode()


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    reader, writer = (os.fdopen(end, mode, 0) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    with reader, writer:
        yield reader, writer


@contextlib.contextmanager
def _started(request: IO[bytes], token: IO[bytes], verdict: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The confined process; it and all it started are dead when the context ends."""
    ends = (token.fileno(), verdict.fileno())
    command = [_interpreter(), "-S", "-s", "-B", "-X", "utf8", str(CHILD), *map(str, ends)]
    environment = {"PYTHONHASHSEED": "0"}
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    process = subprocess.Popen(
        command,
        stdin=request,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        pass_fds=ends,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _interpreter() -> str:
    """The Python outside any virtual environment: the same standard library, no packages."""
    return getattr(sys, "_base_executable", None) or sys.executable


def _listen(verdict: IO[bytes], timeout: float) -> tuple[bytes, bool]:
    """What is written to the verdict descriptor until it is closed, and whether the program was still running then."""
    said = b""
    deadline = time.monotonic() + STARTUP_SECONDS
    running = False
    while len(said) < LONGEST_REPORT:
        if not running and said.startswith(READY):
            running, deadline = True, time.monotonic() + timeout
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([verdict], [], [], left)[0]:
            return said, True
        piece = verdict.read(4096)
        if not piece:
            break
        said += piece
    return said, False
