"""Where to probe, with how small a job, and what is said where no answer comes."""

from __future__ import annotations

from dataclasses import dataclass

from bitdistiller.cluster.doctor.demand import Demand
from bitdistiller.cluster.request import Request

PROBE_MINUTES = 10
PROBE_MEM_MB = 2000


@dataclass(frozen=True)
class Silence:
    """A probe that gave no answer, and whether that is the cluster's fault or only its queue's."""

    reason: str
    advice: str
    waiting: bool = False


@dataclass(frozen=True)
class Target:
    """Where to probe: a partition, with a GPU or without."""

    partition: str | None
    gpu: bool
    gpu_gres: str = ""

    @property
    def name(self) -> str:
        """For the terminal."""
        return f"{self.partition or 'default partition'}{', GPU' if self.gpu else ''}"


def targets(demands: list[Demand], gpu_gres: str) -> list[Target]:
    """One for each partition that jobs without GPUs go to, and each that jobs with them go to."""
    found = (Target(demand.partition, demand.gpus > 0, gpu_gres if demand.gpus else "") for demand in demands)
    return list(dict.fromkeys(found))


def request_of(target: Target, account: str | None) -> Request:
    """The smallest job that can tell."""
    extra = (f"gres={target.gpu_gres}:1",) if target.gpu_gres else ()
    return Request(
        partition=target.partition,
        account=account,
        gpus=1 if target.gpu and not extra else None,
        mem_mb=PROBE_MEM_MB,
        minutes=PROBE_MINUTES,
        name="bitdistiller-doctor",
        requeues=0,
        extra=extra,
    )
