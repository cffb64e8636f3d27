"""One file per kind of check. A check is a function of the situation to findings; the registry has their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bitdistiller.cluster.doctor.checks.fit import (
    check_cpus,
    check_gpus,
    check_memory,
    check_several_nodes,
    check_walltime,
)
from bitdistiller.cluster.doctor.checks.here import check_files, check_limits, check_plugin
from bitdistiller.cluster.doctor.checks.nodes import (
    check_clock,
    check_cuda,
    check_environment,
    check_files_on_nodes,
    check_limits_on_nodes,
    check_nodes,
    check_srun,
)
from bitdistiller.cluster.doctor.checks.partitions import check_kill_wait, check_partitions, check_preemption
from bitdistiller.cluster.doctor.checks.requeue import check_requeue
from bitdistiller.cluster.doctor.checks.shared_disk import check_locks, check_shared_disk
from bitdistiller.cluster.doctor.checks.status import check_accounting, check_min_job_age, check_scheduler, check_status
from bitdistiller.cluster.doctor.finding import Finding
from bitdistiller.cluster.doctor.situation import Situation

CHECKS: tuple[Callable[[Situation], Iterable[Finding]], ...] = (
    check_scheduler,
    check_status,
    check_accounting,
    check_min_job_age,
    check_requeue,
    check_kill_wait,
    check_partitions,
    check_preemption,
    check_walltime,
    check_gpus,
    check_memory,
    check_cpus,
    check_several_nodes,
    check_plugin,
    check_limits,
    check_files,
    check_nodes,
    check_srun,
    check_shared_disk,
    check_locks,
    check_clock,
    check_environment,
    check_limits_on_nodes,
    check_files_on_nodes,
    check_cuda,
)
