"""AdamW on float32 masters, with its two moments in float32 or in 8 bits."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bitdistiller.config import Training
from bitdistiller.errors import InputError

FUSED = ("cpu", "cuda", "xpu", "mps")
"""Devices with a kernel that updates all parameters in one pass."""


def make_optimizer(groups: list[dict[str, Any]], training: Training) -> Optimizer:
    """
    AdamW (Loshchilov and Hutter, 2019) as the recipe says.

    Every group is {"params": [...]}; its own "lr" or "weight_decay" wins over the recipe's. The peak learning rate
    stays in the group as "initial_lr"; `set_learning_rates` follows the schedule. Parameters are the float32 masters.
    Raises InputError when `optimizer: adamw-8bit` cannot run here.
    """
    groups = [{"lr": training.learning_rate, "weight_decay": training.weight_decay, **group} for group in groups]
    groups = [{**group, "params": list(group["params"]), "initial_lr": group["lr"]} for group in groups]
    betas = (training.adam_beta1, training.adam_beta2)
    if training.optimizer == "adamw-8bit":
        return _eight_bit(groups, betas)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return torch.optim.AdamW(groups, betas=betas, fused=devices <= set(FUSED))


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` of its peak, in place where it is a tensor."""
    for group in optimizer.param_groups:
        rate = float(group["initial_lr"]) * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes that the optimizer's state takes in this process; 0 before the first step."""
    values = itertools.chain.from_iterable(state.values() for state in optimizer.state.values())
    plain = (part for value in values if isinstance(value, Tensor) for part in _plain_tensors(value))
    return sum(tensor.nbytes for tensor in plain)


def _plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that a wrapper (of 8-bit codes, of a shard) is made of; a plain tensor itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
    for part in parts:
        if isinstance(part, Tensor):
            yield from _plain_tensors(part)


def _eight_bit(groups: list[dict[str, Any]], betas: tuple[float, float]) -> Optimizer:
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it warns of every kernel for another GPU
    try:
        from bitdistiller.distillation.eight_bit import EightBitAdamW
    except ImportError as error:
        raise InputError(
            "training.optimizer: adamw-8bit needs the package torchao, which cannot be imported here "
            f"({str(error).splitlines()[0]}); run: pip install 'bitdistiller[engines]', or set optimizer: adamw"
        ) from error
    return EightBitAdamW(groups, betas=betas)
