"""The processes that train together, as one of them sees the others."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from bitdistiller.errors import BitDistillerError

CPU = torch.device("cpu")
TIMEOUT = datetime.timedelta(minutes=30)


class Elsewhere(BitDistillerError):
    """Another process has ended and says why; this one ends with the same exit code, in silence."""

    said = True


@dataclass(frozen=True)
class World:
    """`rank` of `size` processes and the device this one computes on; size 1 needs no process group."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @classmethod
    def join(cls, alone: bool = False) -> World:
        """
        Join the process group that the environment describes, over gloo on CPUs and NCCL on GPUs.

        With `alone` one process forms a group too, for engines that cannot do without.
        """
        size, on_gpu = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.is_available()
        local = int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count())
        device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(device)
        if size == 1:
            if alone and not dist.is_initialized():
                os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
                store = dist.HashStore()
                dist.init_process_group(_backend(on_gpu), store=store, rank=0, world_size=1)
            return cls(device=device)
        if not dist.is_initialized():
            dist.init_process_group(_backend(on_gpu), timeout=TIMEOUT)
        return cls(dist.get_rank(), size, device)

    @staticmethod
    def leave() -> None:
        """Leave the process group, if there is one."""
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process writes the files that all share."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether one process at least says yes; all get the same answer."""
        return bool(self.sum(float(flag))[0] > 0) if self.size > 1 else flag

    def sum(self, *values: float) -> list[float]:
        """Sums over all processes, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def share(self, value: Any) -> Any:
        """The leader's value (any object that pickles), for all."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def lead(self, work: Callable[[], Any], share: Callable[[Any], Any] = lambda value: value) -> Any:
        """Let the leader alone do `work`; the others get `share` of its result, and all end when it fails."""
        value, error = None, None
        if self.leads:
            try:
                value = work()
            except BaseException as caught:
                error = caught
        code = self.share(None if error is None else getattr(error, "exit_code", 1))
        if error is not None:
            raise error
        if code is not None:
            raise self.elsewhere(code)
        shared = self.share(share(value) if self.leads else None)
        return value if self.leads else shared

    def together(self, work: Callable[[], None]) -> None:
        """Do `work` on all; when it fails on one, all raise."""
        error: BaseException | None = None
        try:
            work()
        except Exception as caught:
            error = caught
        codes = int(max(self.sum(*self._own(getattr(error, "exit_code", 1) if error else 0))))
        if error is not None:
            raise error
        if codes:
            raise self.elsewhere(codes)

    def _own(self, value: float) -> list[float]:
        return [value if rank == self.rank else 0.0 for rank in range(self.size)]

    @staticmethod
    def elsewhere(code: int) -> Elsewhere:
        """The error of a process that ends because another does, which says why."""
        error = Elsewhere("another process of this run has ended and said why")
        error.exit_code = code
        return error


def _backend(on_gpu: bool) -> str:
    return "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
