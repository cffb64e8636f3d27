"""FSDP2: weights, gradients and optimizer state in shards, checkpoints that any number of processes can resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard

from bitdistiller.distillation.engines.base import Engine, Groups, State
from bitdistiller.distillation.optimizers import make_optimizer, set_learning_rates
from bitdistiller.distillation.world import World
from bitdistiller.layers import decoder_blocks

WEIGHTS = "weights"
OPTIMIZER = "optimizer"


class FsdpEngine(Engine):
    """`fully_shard` on every decoder block and on the rest; torch's distributed checkpoints."""

    name: ClassVar[str] = "fsdp"
    needs_group: ClassVar[bool] = True
    optimizer_files: ClassVar[tuple[str, ...]] = (OPTIMIZER,)

    @property
    def reshards(self) -> bool:
        """Blocks of 8-bit moments do not fit into other shards: measured, a resume by another number goes astray."""
        return self.training.optimizer != "adamw-8bit"

    def _prepare(self, groups: Groups) -> None:
        self.module = shard(self.student, self.world, offload=self.training.offload != "none")
        self.optimizer = make_optimizer(groups(self.model), self.training)
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @classmethod
    def place_teacher(cls, world: World, teacher: Any) -> None:
        """In shards, but for the head, which multiplies chunks of hidden states and is whole on every process."""
        head = teacher.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)  # no longer tied
        head.to(world.device)
        shard(teacher.base_model, world).set_reshard_after_forward(True)  # no backward pass ever does

    def backward(self, loss: Tensor) -> None:
        """The mean over processes is what reduce-scatter takes; every micro-batch's gradients are sharded at once."""
        (loss * self.world.size).backward()

    def step(self, factor: float, skip: bool) -> float:
        norm = nn.utils.clip_grad_norm_(self._parameters, self.training.max_gradient_norm)
        size = (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item()
        if not skip and torch.isfinite(torch.tensor(size)):
            set_learning_rates(self.optimizer, factor)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return size

    def save(self, checkpoint: Path) -> None:
        weights, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.save(weights, checkpoint_id=checkpoint / WEIGHTS)
        dcp.save(optimizer, checkpoint_id=checkpoint / OPTIMIZER)

    def load(self, checkpoint: Path) -> None:
        weights, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.load(weights, checkpoint_id=checkpoint / WEIGHTS)
        dcp.load(optimizer, checkpoint_id=checkpoint / OPTIMIZER)
        set_state_dict(self.model, self.optimizer, model_state_dict=weights, optim_state_dict=optimizer)

    def load_weights(self, checkpoint: Path) -> None:
        weights = get_model_state_dict(self.model)
        dcp.load(weights, checkpoint_id=checkpoint / WEIGHTS)
        set_model_state_dict(self.model, weights)

    def full_state(self) -> State:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.model, options=options)
        names = {name for name, _ in self.model.named_parameters()} | {name for name, _ in self.model.named_buffers()}
        return {name: tensor for name, tensor in state.items() if name in names}


def shard(student: nn.Module, world: World, offload: bool = False) -> FSDPModule:
    """
    Shard a module whose `model` has decoder blocks over all processes, block by block; in place.

    A block comes to the device when it is its turn, so that no device ever holds the whole.
    """
    kind = world.device.type
    mesh = init_device_mesh(kind, (world.size,))
    policy = CPUOffloadPolicy(pin_memory=kind == "cuda") if offload else OffloadPolicy()
    _, blocks = decoder_blocks(student)
    for block in blocks:
        fully_shard(block, mesh=mesh, offload_policy=policy)
    return fully_shard(student, mesh=mesh, offload_policy=policy)
