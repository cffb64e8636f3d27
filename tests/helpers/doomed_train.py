"""
The stage `train` in children of one process that has imported everything, each child killed where its orders say.

A server reads one JSON line per attempt, forks before any thread of torch is there, and answers on the file descriptor
it was given with a JSON line: the exit code (negative: the signal's number), the message of an error meant for the
user, and how many lines of the package ran. Orders: `recipe` (text), `inputs`, `output`, and at most one way to die:

- `line`: SIGKILL before the n-th executed line of the rooms `distillation` and `stages`; with `saving: true` only lines
  that run while a checkpoint is saved are counted
- `bytes`, `step`: the kernel ends the process in the middle of writing a file of the checkpoint of `step`, as soon as
  one gets longer than this
- `part`, `step`: SIGKILL while the checkpoint of `step` is written: `weights` between weights and optimizer state,
  `seal` before the marker, `prune` after it
- `fill`, `step`: no death, but a file that takes what is left of its disk after a step (or at the `end`)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import bitdistiller
from bitdistiller.config import TrainRecipe
from bitdistiller.distillation import checkpoints
from bitdistiller.distillation.engines import local
from bitdistiller.distillation.inputs import Inputs
from bitdistiller.distillation.loop import Loop, Progressed
from bitdistiller.distillation.saving import Saver
from bitdistiller.distillation.stage import run
from bitdistiller.errors import BitDistillerError
from bitdistiller.recipes import load_recipe

WATCHED = tuple(str(Path(bitdistiller.__file__).parent / room) for room in ("distillation", "stages"))


LAZY = [
    "transformers.core_model_loading",
    "transformers.models.llama.modeling_llama",
    "transformers.quantizers.auto",
    "torch.utils.tensorboard",
    "deepspeed",
]
"""What the stage or its libraries import on their way, as far as it is installed."""


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Lines:
    """Counts executed lines of the watched rooms; a trace function that kills the process at one of them."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal, self.seen = fatal, 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Callable | None:
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        if event == "line":
            self.seen += 1
            if self.seen == self.fatal:
                die()
        return self

    def watch(self, saving: bool) -> None:
        """Begin now, or whenever a checkpoint is saved."""
        if not saving:
            sys.settrace(self)
            return
        save = Saver.save

        def watched(saver: Saver, state: Progressed) -> None:
            sys.settrace(self)
            try:
                save(saver, state)
            finally:
                sys.settrace(None)

        Saver.save = watched


def die_after_bytes(limit: int, step: int) -> None:
    """No file may get longer than `limit` while the checkpoint of `step` is saved; the kernel sees to it."""
    save = Saver.save

    def limited(saver: Saver, state: Progressed) -> None:
        if state.step == step:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        save(saver, state)

    Saver.save = limited


def die_writing(part: str, step: int) -> None:
    """At one part of the checkpoint of `step`."""
    seal, prune, write = checkpoints.seal, checkpoints.prune, local.torch.save

    def doomed_write(state: Any, path: Path) -> None:
        if part == "weights" and path.parent.name == f"checkpoint-{step}":
            path.write_bytes(b"half")
            die()
        write(state, path)

    def doomed_seal(checkpoint: Path) -> None:
        if part == "seal" and checkpoint.name == f"checkpoint-{step}":
            die()
        seal(checkpoint)

    def doomed_prune(root: Path, keep: int) -> None:
        if part == "prune" and step in checkpoints.steps(root):
            die()
        prune(root, keep)

    checkpoints.seal, checkpoints.prune, local.torch.save = doomed_seal, doomed_prune, doomed_write


def fill(path: Path) -> None:
    """Leave not one byte on the disk that `path` is on."""
    with path.open("ab", buffering=0) as handle, contextlib.suppress(OSError):
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while handle.write(bytes(size)) == size:
                    pass


def fill_after(path: Path, step: int | str) -> None:
    """Fill the disk after an optimizer step, or after the last one when the result is about to be written."""
    take, load_best = Loop._step, Saver.load_best

    def filling_step(loop: Loop, index: int) -> dict[str, Any]:
        event = take(loop, index)
        if index + 1 == step:
            fill(path)
        return event

    def filling_end(saver: Saver) -> int:
        if step == "end":
            fill(path)
        return load_best(saver)

    Loop._step, Saver.load_best = filling_step, filling_end


def attempt(orders: dict[str, Any], answer: int) -> int:
    """One attempt in this process; its exit code."""
    lines = Lines(orders.get("line"))
    if "part" in orders:
        die_writing(orders["part"], orders["step"])
    elif "bytes" in orders:
        die_after_bytes(orders["bytes"], orders["step"])
    elif "fill" in orders:
        fill_after(Path(orders["fill"]), orders["step"])
    elif "line" in orders:
        lines.watch(orders.get("saving", False))
    inputs = Inputs(**{name: Path(path) for name, path in orders["inputs"].items()})
    error = None
    try:
        recipe = load_recipe(TrainRecipe, orders["recipe"], {})
        run(
            recipe,
            inputs,
            output=Path(orders["output"]),
            work=Path(orders["work"]) if "work" in orders else None,
            time_budget=None,
        )
    except BitDistillerError as caught:
        error = caught
    sys.settrace(None)
    said = {"error": error and str(error), "lines": lines.seen, "modules": list(sys.modules)}
    with os.fdopen(answer, "w") as pipe:
        json.dump(said, pipe)
    return error.exit_code if error else 0


def in_a_child(orders: dict[str, Any]) -> dict[str, Any]:
    """Fork, let the child make one attempt, and tell how it ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os._exit(attempt(orders, write))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(70)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answer = {"error": None, "lines": None, **json.loads(said or "{}")}
    import_all(answer.pop("modules", []))
    return {"code": code, **answer}


def import_all(names: list[str]) -> None:
    """What a child has imported on its way, so that the next ones need not."""
    for name in names:
        if name not in sys.modules and name != "__main__":
            with contextlib.suppress(Exception):
                importlib.import_module(name)


if __name__ == "__main__":
    import_all(LAZY)
    with os.fdopen(int(sys.argv[1]), "w") as answers:
        for order in sys.stdin:
            answers.write(json.dumps(in_a_child(json.loads(order))) + "\n")
            answers.flush()
