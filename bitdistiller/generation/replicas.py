"""Several copies of a model, each in a process and on GPUs of its own, that share the prompts of every call."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from bitdistiller.data.tokenising import encode_prompt
from bitdistiller.errors import InputError
from bitdistiller.generation.engine import Completion, Engine, Sampling
from bitdistiller.generation.engines import Wanted
from bitdistiller.generation.placement import Placement, place
from bitdistiller.generation.serving import gpu_count
from bitdistiller.generation.vllm_engine import VllmEngine, context_of

PR_SET_PDEATHSIG = 1
Answer = tuple[Any, InputError | None, str]
"""A value, or the error that the user is to see, or the traceback of another one."""


def open_vllm(wanted: Wanted) -> Engine:
    """The model on all GPUs of this job, in as many copies as `place` says; on the CPU where there is none."""
    config = AutoConfig.from_pretrained(wanted.model)
    placement = place(
        gpu_count(), config.num_attention_heads, weight_bytes(wanted), gpu_bytes(), wanted.tensor_parallel
    )
    if placement.copies == 1:
        return VllmEngine(wanted, placement.tensor)
    return Replicas(wanted, placement)


def weight_bytes(wanted: Wanted) -> float:
    """Size of the model's weights in the precision that is wanted."""
    stored = sum(path.stat().st_size for path in wanted.model.glob("*.safetensors"))
    declared = AutoConfig.from_pretrained(wanted.model).dtype or torch.float32
    return stored * getattr(torch, wanted.dtype).itemsize / declared.itemsize


def gpu_bytes() -> float:
    """Memory of the first GPU; 0 without one."""
    return float(torch.cuda.get_device_properties(0).total_memory) if gpu_count() else 0.0


class Replicas:
    """`VllmEngine` in `placement.copies` processes; prompt i of a call goes to copy i modulo their number."""

    def __init__(self, wanted: Wanted, placement: Placement) -> None:
        """Raises InputError where a copy cannot load the model."""
        self.tokenizer = AutoTokenizer.from_pretrained(wanted.model)
        self.context = context_of(wanted.model)
        self.copies = [Copy(wanted, placement.tensor, devices) for devices in visible_devices(placement)]
        for copy in self.copies:
            copy.receive()

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, special tokens included."""
        return len(encode_prompt(self.tokenizer, prompt))

    def complete(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; see Engine."""
        step = min(len(self.copies), len(prompts))
        for start, copy in enumerate(self.copies[:step]):
            copy.connection.send((prompts[start::step], seeds[start::step], sampling))
        parts = [copy.receive() for copy in self.copies[:step]]
        return [parts[index % step][index // step] for index in range(len(prompts))]


class Copy:
    """One process with one copy of the model; it ends when this process does."""

    def __init__(self, wanted: Wanted, tensor: int, devices: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, wanted, tensor, devices), daemon=False)
        self.process.start()
        theirs.close()

    def receive(self) -> Any:
        """The value of the next answer; raises what went wrong there."""
        try:
            value, refused, failure = self.connection.recv()
        except EOFError:
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


def serve(connection: Connection, wanted: Wanted, tensor: int, devices: str | None) -> None:
    """The life of a copy: load, say so, complete what comes until the other end is closed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the stage decides when to stop; it closes the connection
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    engine, answer = None, _answer(lambda: VllmEngine(wanted, tensor))
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
