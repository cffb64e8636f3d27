"""Several copies of a model, each in a process and on GPUs of its own, that share the prompts of every call."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from bitdistiller.data.tokenising import encode_prompt
from bitdistiller.errors import InputError
from bitdistiller.generation.engine import Completion, Engine, Sampling, Wanted
from bitdistiller.generation.placement import Placement
from bitdistiller.stages.parent import signal_when_parent_dies

Load = Callable[[Wanted, int], Engine]
"""Loads a model on that many GPUs; a function or class that a new process can import."""
Answer = tuple[Any, InputError | None, str]
"""A value, or the error that the user is to see, or the traceback of another one."""


class Replicas:
    """An engine in `placement.copies` processes; prompt i of a call goes to copy i modulo their number."""

    def __init__(self, load: Load, wanted: Wanted, placement: Placement, tokenizer: Any, context: int) -> None:
        """`load` gives a process its engine. Raises InputError where a copy cannot load the model."""
        self.tokenizer, self.context = tokenizer, context
        self.copies = [Copy(load, wanted, placement.tensor, devices) for devices in visible_devices(placement)]
        atexit.register(self.close)  # multiprocessing would wait for them
        for copy in self.copies:
            copy.receive()

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, special tokens included."""
        return len(encode_prompt(self.tokenizer, prompt))

    def complete(
        self, prompts: Sequence[str | list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """One completion per prompt, in order; see Engine."""
        step = min(len(self.copies), len(prompts))
        for start, copy in enumerate(self.copies[:step]):
            copy.connection.send((prompts[start::step], seeds[start::step], sampling))
        parts = [copy.receive() for copy in self.copies[:step]]
        return [parts[index % step][index // step] for index in range(len(prompts))]

    def close(self) -> None:
        """End the copies, whatever they are doing."""
        for copy in self.copies:
            copy.process.kill()


class Copy:
    """One process with one copy of the model; it ends when this process does."""

    def __init__(self, load: Load, wanted: Wanted, tensor: int, devices: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, load, wanted, tensor, devices))
        self.process.start()
        theirs.close()

    def receive(self) -> Any:
        """The value of the next answer; raises what went wrong there."""
        try:
            value, refused, failure = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise RuntimeError(f"a copy of the model ended with exit code {self.process.exitcode}") from None
        if refused is not None:
            raise refused
        if failure:
            raise RuntimeError(f"a copy of the model failed:\n{failure}")
        return value


def visible_devices(placement: Placement) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of every copy; None on the CPU."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(n) for n in range(placement.tensor * placement.copies)]
    if given == "":
        return [None] * placement.copies
    return [",".join(names[n * placement.tensor :][: placement.tensor]) for n in range(placement.copies)]


def serve(connection: Connection, load: Load, wanted: Wanted, tensor: int, devices: str | None) -> None:
    """The life of a copy: load, say so, complete what comes until the other end is closed."""
    signal_when_parent_dies(signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the stage decides when to stop; it closes the connection
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    engine, answer = None, _answer(lambda: load(wanted, tensor))
    if answer[0] is not None:
        engine, answer = answer[0], (None, None, "")
    connection.send(answer)
    while engine is not None:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_answer(lambda job=job: engine.complete(*job)))


def _answer(work: Any) -> Answer:
    try:
        return work(), None, ""
    except InputError as error:
        return None, InputError(str(error)), ""
    except Exception:
        return None, None, traceback.format_exc()
