"""The whole student on every process: one process, or several that add their gradients (DDP)."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bitdistiller.distillation.engines.base import Engine, Groups, State, trained_state
from bitdistiller.distillation.optimizers import make_optimizer, set_learning_rates

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.pt"
RENAMED = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
NO_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if RENAMED else "broadcast_buffers": False}
"""Buffers (the angles of rotary embeddings) are the same on all processes and never change."""


class SingleEngine(Engine):
    """One process."""

    name: ClassVar[str] = "single"
    optimizer_files: ClassVar[tuple[str, ...]] = (OPTIMIZER,)

    @property
    def reshards(self) -> bool:
        return True

    def _prepare(self, groups: Groups) -> None:
        self.student.to(self.world.device)
        self.module = self._wrap(self.student)
        self.optimizer = make_optimizer(groups(self.model), self.training)
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _wrap(self, student: nn.Module) -> nn.Module:
        return student

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, factor: float, skip: bool) -> float:
        norm = nn.utils.clip_grad_norm_(self._parameters, self.training.max_gradient_norm)
        size = self._value(norm)
        if not skip and torch.isfinite(torch.tensor(size)):
            set_learning_rates(self.optimizer, factor)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return size

    def _value(self, norm: Tensor) -> float:
        return norm.item()

    def save(self, checkpoint: Path) -> None:
        if self.world.leads:
            state = {name: tensor.cpu().contiguous() for name, tensor in trained_state(self.model).items()}
            save_file(state, checkpoint / WEIGHTS)
            torch.save(self.optimizer.state_dict(), checkpoint / OPTIMIZER)

    def load(self, checkpoint: Path) -> None:
        self.load_weights(checkpoint)
        state = torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=False)
        self.optimizer.load_state_dict(state)

    def load_weights(self, checkpoint: Path) -> None:
        self.model.load_state_dict(load_file(checkpoint / WEIGHTS), strict=False)

    def full_state(self) -> State:
        return {name: tensor.cpu() for name, tensor in trained_state(self.model).items()} if self.world.leads else {}


class DdpEngine(SingleEngine):
    """Distributed data parallel: every process holds everything, gradients are added after the last micro-batch."""

    name: ClassVar[str] = "ddp"
    needs_group: ClassVar[bool] = True

    def _wrap(self, student: nn.Module) -> nn.Module:
        on_gpu = self.world.device.type == "cuda"
        devices = [self.world.device.index] if on_gpu else None
        return DistributedDataParallel(student, device_ids=devices, gradient_as_bucket_view=True, **NO_BUFFERS)

    def begin(self, last: bool) -> None:
        """DDP decides in the forward pass whether the backward pass reduces."""
        self.module.require_backward_grad_sync = last  # type: ignore[assignment]

    def backward(self, loss: Tensor) -> None:
        """DDP takes the mean over processes, of all micro-batches at the last one."""
        (loss * self.world.size).backward()
