"""torchao's AdamW with 8-bit states, made to run where nothing can be compiled too."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torchao.optim import AdamW8bit
from torchao.optim.adam import single_param_adam

from bitdistiller.kernels import compiled, switch

logger = logging.getLogger(__name__)

STATES = ("exp_avg", "exp_avg_sq")


class EightBitAdamW(AdamW8bit):
    """
    AdamW whose moments are block-wise 8-bit codes (Dettmers et al., 2022; 256 values share a float32 scale).

    Tensors with fewer than 4096 values, or whose size 256 does not divide, keep float32 moments. torchao compiles the
    update of one tensor, once per shape (a few seconds each). Where that is not worth it or not possible (small models
    and missing compilers on a CPU, BITDISTILLER_KERNELS=eager), the same update runs uncompiled: equal up to rounding,
    with temporary memory of some 40 bytes per value of the largest tensor.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, betas=betas)
        self.compiles = _worth_compiling([p for group in self.param_groups for p in group["params"]])
        logger.debug("8-bit AdamW, %s", "compiled" if self.compiles else "not compiled")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every parameter that has a gradient."""
        if self.compiles:
            super().step()
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: torch.nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name, signed in zip(STATES, (True, False), strict=True):
                state[name] = self._new_buffer(parameter, signed)
        state["step"] += 1
        moments = (state[name] for name in STATES)
        constants = (group["lr"], *group["betas"], group["weight_decay"], group["eps"])
        single_param_adam(parameter.detach(), parameter.grad, state["step"], *moments, None, *constants, True, False)


def _worth_compiling(parameters: list[torch.nn.Parameter]) -> bool:
    if switch.setting() == "eager":
        return False
    if any(parameter.device.type != "cpu" for parameter in parameters):
        return True
    return sum(parameter.numel() for parameter in parameters) >= switch.WORTH_COMPILING and compiled.works()
