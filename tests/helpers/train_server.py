"""The client of doomed_train.py: attempts at the stage `train` in processes that start at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from helpers.processes import environment

from bitdistiller.config import TrainRecipe
from bitdistiller.recipes import as_text

SERVER = Path(__file__).with_name("doomed_train.py")


DISK_MEGABYTES = 16
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
MOUNT_AND_RUN = 'mount -t tmpfs -o size="$1"m disk "$2" && shift 2 && exec "$@"'


def mounting(directory: Path) -> list[str]:
    """
    The prefix of a command that is to see a disk of DISK_MEGABYTES as `directory`; empty where that cannot be.

    The mount is in a namespace of the command's own, for which no privilege is needed where the kernel allows it.
    """
    prefix = [*NAMESPACE, MOUNT_AND_RUN, "sh", str(DISK_MEGABYTES), str(directory)]
    if shutil.which(prefix[0]) is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        return []
    return prefix


@dataclass
class Disk:
    """A disk that only the process `pid` sees, as `inside`."""

    inside: Path
    pid: int

    @property
    def outside(self) -> Path:
        """The way to it from here."""
        return Path(f"/proc/{self.pid}/root{self.inside}")


class TrainServer:
    """A context manager; `log` is the file that the attempts' messages go to, `prefix` a command to start it under."""

    disk: Disk | None = None

    def __init__(self, log: Path, prefix: Sequence[object] = ()) -> None:
        self.log, self.prefix = log, prefix

    def __enter__(self) -> Self:
        read, write = os.pipe()
        command = [*map(str, self.prefix), sys.executable, str(SERVER), str(write)]
        with self.log.open("w") as log:
            streams = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log, "text": True}
            self.process = subprocess.Popen(command, env=environment(), pass_fds=(write,), **streams)
        os.close(write)
        self.answers = os.fdopen(read)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.answers.close()

    def __call__(self, recipe: TrainRecipe, inputs: dict[str, Path], output: Path, **doom: Any) -> dict[str, Any]:
        """One attempt; see doomed_train.py for the ways to die and for what is answered."""
        orders = {"recipe": as_text(recipe), "inputs": {name: str(path) for name, path in inputs.items()}}
        self.process.stdin.write(json.dumps({**orders, "output": str(output), **doom}) + "\n")
        self.process.stdin.flush()
        line = self.answers.readline()
        assert line, self.log.read_text()
        return json.loads(line)
