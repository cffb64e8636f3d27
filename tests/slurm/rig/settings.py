"""What kind of cluster to start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """Times are in seconds, memory in MB. All timers are short: a test waits for each of them."""

    nodes: int = 2
    """CPU nodes c1, c2, ...; there is one GPU node more, g1."""
    gpus: int = 2
    """GPUs of g1, copies of /dev/null; 0 leaves the gres out."""
    cpus: int = 4
    memory: int = 8000
    accounting: bool = True
    """mariadbd and slurmdbd; without them sacct and sacctmgr fail."""
    client_wrappers: bool = True
    """Clients on PATH that know slurm.conf even where SLURM_CONF was dropped from the environment."""
    max_time: str = "INFINITE"
    """Of the partitions cpu and gpu; minutes, or as in slurm.conf."""
    preempt_mode: Literal["REQUEUE", "CANCEL"] = "REQUEUE"
    """What happens to a job in the partition low when one in high needs its place."""
    grace: int = 0
    """Before that happens."""
    job_requeue: bool = True
    min_job_age: int = 300
    kill_wait: int = 2
    node_timeout: int = 3
    """Until a silent node is DOWN: about four times this."""
    requeue_delay: int = 5
    """Until a requeued job may start again."""

    @property
    def node_names(self) -> list[str]:
        """CPU nodes, then the GPU node."""
        return [*(f"c{i + 1}" for i in range(self.nodes)), "g1"]
