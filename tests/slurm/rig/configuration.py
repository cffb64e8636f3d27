"""The files that the daemons read, as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slurm.rig.settings import Settings

ACCOUNT = "tests"


@dataclass(frozen=True)
class Places:
    """Directory, host, user and ports of one cluster."""

    directory: Path
    host: str
    user: str
    controller_port: int
    accounting_port: int
    node_ports: tuple[int, ...]

    @property
    def munge(self) -> Path:
        """Socket of munged."""
        return self.directory / "munge" / "socket"

    @property
    def database(self) -> Path:
        """Socket of mariadbd."""
        return self.directory / "mysql" / "socket"

    @property
    def slurm_conf(self) -> Path:
        """What SLURM_CONF names."""
        return self.directory / "etc" / "slurm.conf"


def slurm_conf(settings: Settings, places: Places) -> str:
    """slurm.conf: several slurmd on one host, no cgroups, everything on loopback."""
    here = places.directory
    lines = [
        "ClusterName=rig",
        f"SlurmctldHost={places.host}(127.0.0.1)",
        f"SlurmUser={places.user}",
        f"SlurmdUser={places.user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={places.munge},cred_expire={settings.requeue_delay}",
        "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
        f"SlurmctldPort={places.controller_port}",
        f"StateSaveLocation={here}/state",
        f"SlurmdSpoolDir={here}/spool/%n",
        f"SlurmctldPidFile={here}/run/slurmctld.pid",
        f"SlurmdPidFile={here}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={here}/log/slurmctld.log",
        f"SlurmdLogFile={here}/log/slurmd-%n.log",
        "MailProg=/bin/true",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/linux",
        "MpiDefault=none",
        "ReturnToService=2",
        "SlurmdParameters=config_overrides",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=sched_interval=1,bf_interval=1",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "SlurmctldParameters=preempt_send_user_signal",
        "PriorityType=priority/basic",
        "SlurmctldTimeout=10",
        f"SlurmdTimeout={settings.node_timeout}",
        f"MessageTimeout={max(settings.node_timeout, 3)}",
        "TCPTimeout=2",
        "BatchStartTimeout=10",
        f"KillWait={settings.kill_wait}",
        f"MinJobAge={settings.min_job_age}",
        f"JobRequeue={int(settings.job_requeue)}",
        "JobFileAppend=1",
        "UnkillableStepTimeout=20",
        "GresTypes=gpu",
    ]
    return "\n".join([*lines, *_accounting(settings, places), *_nodes(settings, places), *_partitions(settings), ""])


def _accounting(settings: Settings, places: Places) -> list[str]:
    if not settings.accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={places.host}",
        f"AccountingStoragePort={places.accounting_port}",
        f"AccountingStoragePass={places.munge}",
        "AccountingStorageTRES=gres/gpu",
    ]


def _nodes(settings: Settings, places: Places) -> list[str]:
    lines = []
    for name, port in zip(settings.node_names, places.node_ports, strict=True):
        gres = f" Gres=gpu:fake:{settings.gpus}" if name == "g1" and settings.gpus else ""
        lines.append(
            f"NodeName={name} NodeHostname={places.host} NodeAddr=127.0.0.1 Port={port} CPUs={settings.cpus} "
            f"RealMemory={settings.memory}{gres} State=UNKNOWN"
        )
    return lines


def _partitions(settings: Settings) -> list[str]:
    cpu_nodes = ",".join(settings.node_names[:-1])
    everywhere = ",".join(settings.node_names)
    common = "DefaultTime=60 State=UP"
    return [
        f"PartitionName=cpu Nodes={cpu_nodes} Default=YES MaxTime={settings.max_time} PriorityTier=5 {common}",
        f"PartitionName=gpu Nodes=g1 MaxTime={settings.max_time} PriorityTier=5 {common}",
        f"PartitionName=low Nodes={everywhere} MaxTime=INFINITE PriorityTier=1 PreemptMode={settings.preempt_mode} "
        f"GraceTime={settings.grace} {common}",
        f"PartitionName=high Nodes={everywhere} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF {common}",
    ]


def gres_conf(settings: Settings, places: Places) -> str:
    """gres.conf: the GPUs of g1 are character devices."""
    if not settings.gpus:
        return ""
    return f"NodeName=g1 Name=gpu Type=fake File={places.directory}/dev/gpu[0-{settings.gpus - 1}]\n"


def slurmdbd_conf(places: Places) -> str:
    """slurmdbd.conf; the daemon wants it to be readable by its user only."""
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={places.munge}",
        f"DbdHost={places.host}",
        "DbdAddr=127.0.0.1",
        f"DbdPort={places.accounting_port}",
        "CommunicationParameters=NoInAddrAny",
        f"SlurmUser={places.user}",
        f"LogFile={places.directory}/log/slurmdbd.log",
        f"PidFile={places.directory}/run/slurmdbd.pid",
        "StorageType=accounting_storage/mysql",
        "StorageHost=localhost",
        "StorageUser=slurm",
        "StoragePass=slurm",
        "StorageLoc=slurm_acct_db",
    ]
    return "\n".join([*lines, ""])


def database_conf(places: Places) -> str:
    """my.cnf: a socket, no network, nothing durable."""
    here = places.directory
    lines = [
        "[mariadbd]",
        f"datadir={here}/mysql/data",
        f"socket={places.database}",
        f"pid-file={here}/run/mariadbd.pid",
        f"log-error={here}/log/mariadbd.log",
        "skip-networking",
        "skip-name-resolve",
        "skip-log-bin",
        "innodb_buffer_pool_size=64M",
        "innodb_log_file_size=16M",
        "innodb_flush_log_at_trx_commit=0",
        "innodb_lock_wait_timeout=900",
        "innodb_doublewrite=0",
        "performance_schema=off",
    ]
    return "\n".join([*lines, ""])
