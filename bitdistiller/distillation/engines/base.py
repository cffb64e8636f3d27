"""What every engine offers to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from bitdistiller.config import Training
from bitdistiller.distillation.world import World

Groups = Callable[[nn.Module], list[dict[str, Any]]]
State = dict[str, Tensor]


class Engine(ABC):
    """
    A student on one or many processes: backward, optimizer step, and the files both can be resumed from.

    `student` is a module whose `model` is the Hugging Face model and whose call gives this process's share of a step's
    loss. Gradients are summed over micro-batches and processes, because every share is weighted by the whole step's
    counts. `module` is what to call in place of `student`.
    """

    name: ClassVar[str]
    can_skip: ClassVar[bool] = True
    """Whether the gradients of a step can be thrown away after they were reduced."""
    needs_group: ClassVar[bool] = False
    """Whether one process alone needs a process group too."""
    module: nn.Module

    def __init__(self, student: nn.Module, training: Training, world: World, groups: Groups) -> None:
        """`groups(model)` gives the optimizer's parameter groups, each with its peak learning rate as `lr`."""
        self.student, self.training, self.world = student, training, world
        self._prepare(groups)

    @property
    def reshards(self) -> bool:
        """Whether a checkpoint can be resumed by another number of processes."""
        return False

    @property
    def model(self) -> nn.Module:
        """The Hugging Face model."""
        return self.student.model

    @classmethod
    def place_teacher(cls, world: World, teacher: Any) -> None:
        """Put a frozen Hugging Face model, in place, where the student will be; here all of it on every process."""
        teacher.to(world.device)

    @abstractmethod
    def _prepare(self, groups: Groups) -> None:
        """Move, wrap or shard the student; make the optimizer."""

    def begin(self, last: bool) -> None:
        """Say before a micro-batch's forward pass whether it is the step's last one."""
        self.last = last

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch."""

    @abstractmethod
    def step(self, factor: float, skip: bool) -> float:
        """
        Clip, update at `factor` of the peak learning rates, clear the gradients; the norm before clipping.

        With `skip`, or where the norm is not finite and the engine can tell, the gradients are thrown away.
        """

    @abstractmethod
    def save(self, checkpoint: Path) -> None:
        """Write weights and optimizer state into an existing directory; every process calls it."""

    @abstractmethod
    def load(self, checkpoint: Path) -> None:
        """Read what `save` wrote; every process calls it."""

    @abstractmethod
    def load_weights(self, checkpoint: Path) -> None:
        """Read the weights only, for the end of a run."""

    @abstractmethod
    def full_state(self) -> State:
        """All weights on the CPU on the leader (empty elsewhere); every process calls it."""

    optimizer_files: ClassVar[tuple[str, ...]]
    """Patterns of the files in a checkpoint that only a resumed training needs."""


def trained_state(model: nn.Module) -> State:
    """Parameters and persistent buffers by name; a tied weight comes once, under the name of its first owner."""
    names = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    state = model.state_dict()
    return {name: tensor.detach() for name, tensor in state.items() if name in names}
