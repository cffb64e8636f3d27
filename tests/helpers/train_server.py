"""The client of doomed_train.py: attempts at the stage `train` in processes that start at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from helpers.processes import environment

from bitdistiller.config import TrainRecipe
from bitdistiller.recipes import as_text

SERVER = Path(__file__).with_name("doomed_train.py")


class TrainServer:
    """A context manager; `log` is the file that the attempts' messages go to, `prefix` a command to start it under."""

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
