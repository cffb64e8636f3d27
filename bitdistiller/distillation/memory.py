"""How much memory a training will need, said before anything is loaded (docs/training.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from bitdistiller.config import Training
from bitdistiller.distillation.activations import activation_bytes, backward_bytes, loss_bytes
from bitdistiller.distillation.shapes import Shapes

MASTER = 4
"""Bytes of a float32 weight or gradient."""
STATES = {"adamw": 8.0, "adamw-8bit": 2.0 + 2 * 4 / 256}
"""Optimizer state in bytes per parameter; 8 bit: two codes and two float32 scales per 256 values."""
SHARDED = ("zero2", "zero3", "fsdp")
BUCKET = 500_000_000
"""Elements of the buffer in which DeepSpeed reduces gradients."""
PROGRAM = {"cpu": 0.6e9, "cuda": 0.6e9}
"""Bytes of the program itself where the model is: Python and libraries, or the CUDA context."""
HOST_PROGRAM = 2.0e9
"""Host bytes of a process that computes on a GPU."""


@dataclass(frozen=True)
class Setup:
    """The options on which memory depends; of one process unless it says otherwise."""

    engine: str = "single"
    processes: int = 1
    local_processes: int = 1
    """Of these on the same machine, which share its memory."""
    device: Literal["cpu", "cuda"] = "cpu"
    offload: Literal["none", "optimizer", "parameters"] = "none"
    optimizer: str = "adamw"
    teacher: str = "live"
    """live, cached, or none where no loss needs one."""
    precision: str = "bfloat16"
    gradient_checkpointing: bool = True
    micro_batch_size: int = 8
    max_length: int = 1024
    batch_size: int = 128

    @classmethod
    def of(cls, training: Training, **more: Any) -> Self:
        """The options of a recipe, and those that it does not decide (engine, processes, device, ...)."""
        names = ("optimizer", "precision", "gradient_checkpointing", "micro_batch_size", "max_length", "batch_size")
        return cls(**{**{name: getattr(training, name) for name in names}, **more})

    @property
    def flat_shards(self) -> bool:
        """Whether the engine (DeepSpeed) cuts weights into shards that 256 need not divide: none gets 8 bits."""
        return self.engine.startswith("zero")

    @property
    def product_bytes(self) -> int:
        """Bytes of a value in the precision of the matrix products."""
        return 2 if self.precision == "bfloat16" else 4

    @property
    def tokens(self) -> int:
        """Positions of a micro-batch at most, padding too."""
        return self.micro_batch_size * self.max_length

    @property
    def shards(self) -> int:
        """Processes over which what is sharded is divided."""
        return self.processes if self.engine in SHARDED else 1


@dataclass(frozen=True)
class Row:
    """One use of memory of one process, in bytes."""

    name: str
    bytes: float
    on_host: bool = False
    """Whether it lies in host memory although the model computes on a GPU."""


@dataclass(frozen=True)
class Estimate:
    """The rows of one process, and what they were computed from."""

    student: Shapes
    other: Shapes | None
    """The teacher's shapes."""
    setup: Setup
    rows: tuple[Row, ...]

    @property
    def device_bytes(self) -> float:
        """Where the model computes: on each GPU, or on the machine's host for all of its processes."""
        one = sum(row.bytes for row in self.rows if not row.on_host)
        return one * (self.setup.local_processes if self.setup.device == "cpu" else 1)

    @property
    def host_bytes(self) -> float:
        """On the host beside GPUs, for all processes of a machine; 0 where the host is the device."""
        return sum(row.bytes for row in self.rows if row.on_host) * self.setup.local_processes

    def change(self, **options: Any) -> Estimate:
        """The estimate with other options."""
        return estimate(self.student, self.other, replace(self.setup, **options))

    def table(self) -> str:
        """The rows as text for the log, in GB, or in MB where they are small."""
        unit, size = ("GB", 1e9) if max(self.device_bytes, self.host_bytes) >= 2e9 else ("MB", 1e6)
        place = "the host" if self.setup.device == "cpu" else "each GPU"
        lines = [(row.name, row.bytes, " host" if row.on_host else "") for row in self.rows]
        lines.append((f"total on {place}", self.device_bytes, ""))
        if self.host_bytes:
            lines.append(("total on the host", self.host_bytes, ""))
        width = max(len(name) for name, _, _ in lines)
        setup, processes = self.setup, "1 process" if self.setup.processes == 1 else f"{self.setup.processes} processes"
        head = f"expected memory in {unit} ({setup.engine}, {processes}, {setup.micro_batch_size} x {setup.max_length}"
        texts = [f"  {name:<{width}} {amount / size:8.2f}{where}" for name, amount, where in lines]
        return "\n".join([f"{head} tokens):", *texts])


def estimate(student: Shapes, teacher: Shapes | None, setup: Setup) -> Estimate:
    """The memory of training `student`; `teacher`: its shapes, needed unless there is none (default: the student's)."""
    other = teacher or student
    rows = [*_held(student, setup), *_teacher(other, setup), *_in_flight(student, other, setup)]
    rows.append(Row("program", PROGRAM[setup.device]))
    if setup.device == "cuda":
        rows.append(Row("program and loading", HOST_PROGRAM + MASTER * student.parameters, on_host=True))
    return Estimate(student, teacher, setup, tuple(row for row in rows if row.bytes))


def _held(student: Shapes, setup: Setup) -> list[Row]:
    """Weights, gradients and optimizer state."""
    whole, part = student.parameters, student.parameters / setup.shards
    away = setup.device == "cuda"
    moved, states_moved = away and setup.offload == "parameters", away and setup.offload != "none"
    weights = part if setup.engine in ("zero3", "fsdp") else whole
    masters = part if setup.flat_shards else 0
    states = STATES["adamw" if setup.flat_shards else setup.optimizer]
    return [
        Row("student's weights", MASTER * weights, moved),
        Row("DeepSpeed's own masters", MASTER * masters, states_moved),
        Row("gradients", MASTER * part, states_moved),
        Row(f"optimizer ({setup.optimizer})", states * part, states_moved),
        Row("gathered weights and gradients", _gathered(student, setup)),
    ]


def _gathered(student: Shapes, setup: Setup) -> float:
    """What an engine holds whole for a while: two blocks and what is outside of them, or DeepSpeed's buckets."""
    whole = MASTER * (2 * (student.outer_parameters + 2 * student.block_parameters))
    buckets = 2 * MASTER * min(BUCKET, student.parameters)
    return {"fsdp": whole, "zero2": buckets, "zero3": whole + buckets}.get(setup.engine, 0.0)


def _teacher(teacher: Shapes, setup: Setup) -> list[Row]:
    held = {"live": teacher.parameters, "cached": teacher.head_parameters}.get(setup.teacher, 0)
    return [Row(f"teacher ({setup.teacher})", setup.product_bytes * held)]


def _in_flight(student: Shapes, teacher: Shapes, setup: Setup) -> list[Row]:
    """What exists only during a step."""
    b = setup.product_bytes
    kept = student.block_linear_parameters if setup.gradient_checkpointing else student.linear_parameters
    sizes = {"tokens": setup.tokens, "width": setup.max_length, "product_bytes": b}
    return [
        Row("quantised weights", b * kept),
        Row("quantiser's backward", (b + 2 * MASTER) * student.largest_linear),
        Row("embedding's gradient", MASTER * student.head_parameters),
        Row("activations", activation_bytes(student, recomputed=setup.gradient_checkpointing, **sizes)),
        Row("backward of a block", backward_bytes(student, **sizes)),
        Row("loss in chunks", loss_bytes(student, teacher if setup.teacher != "none" else None, setup.device, **sizes)),
    ]
