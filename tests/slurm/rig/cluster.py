"""Start, stop and break a cluster."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

from slurm.rig import accounting, configuration
from slurm.rig.configuration import Places
from slurm.rig.daemons import (
    Daemon,
    descendants,
    kill_all,
    processes_that_hold,
    processes_with,
    wait_until,
)
from slurm.rig.settings import Settings

CLIENTS = (
    "srun",
    "sbatch",
    "salloc",
    "sattach",
    "sbcast",
    "squeue",
    "sacct",
    "scancel",
    "scontrol",
    "sinfo",
    "sacctmgr",
    "sstat",
)
JOB_FIELDS = {"id": "%A", "name": "%j", "state": "%T", "node": "%N", "partition": "%P", "comment": "%k", "reason": "%r"}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str | None:
    """Why no cluster can be started here; None when one can."""
    for program in ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd"):
        if shutil.which(program, path=SYSTEM_PATH) is None:
            return f"{program} is not installed (make slurm-packages, as root)"
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = "nothing"
    return None if address.startswith("127.") else f"the hostname is {address}, not 127.x; run tests/slurm/enclosed"


class Cluster:
    """A SLURM cluster whose nodes are all this machine; a context manager."""

    def __init__(self, directory: Path, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        ports = free_ports(2 + len(self.settings.node_names))
        self.places = Places(directory, socket.gethostname(), getpass.getuser(), ports[0], ports[1], tuple(ports[2:]))
        self.daemons: dict[str, Daemon] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user of this cluster."""
        path = f"{self.places.directory}/bin:{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        database = {"MYSQL_UNIX_PORT": str(self.places.database)}
        return {**kept, **database, "PATH": path, "SLURM_CONF": str(self.places.slurm_conf)}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all daemons and wait until every node is idle."""
        try:
            self._write_files()
            self._start_munge()
            if self.settings.accounting:
                accounting.start_database(self)
                accounting.start_slurmdbd(self)
                accounting.add_account(self)
            self.start_controller()
            for name in self.settings.node_names:
                self.start_node(name)
            self.wait_until_idle()
        except BaseException as error:
            error.add_note("\n".join(f"{d.name}: {d.last_words()}" for d in self.daemons.values()))
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all daemons and whatever their jobs left."""
        kill_all(self._leftovers())
        order = [*map("slurmd-{}".format, self.settings.node_names), "slurmctld", "slurmdbd", "mariadbd", "munged"]
        for name in order:
            if name in self.daemons:
                self.daemons.pop(name).stop()
        kill_all(self._leftovers())

    def run(self, command: list[str], check: bool = True, timeout: float = 60, **options: object) -> object:
        """Run a program as a user of the cluster; returns subprocess.CompletedProcess with text output."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False, **options
        )
        if check and done.returncode:
            raise RuntimeError(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def succeeds(self, command: list[str]) -> bool:
        """Whether a program ends with 0 within 5 seconds."""
        try:
            return self.run(command, check=False, timeout=5).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def jobs(self) -> list[dict[str, str]]:
        """Jobs that are not over, as squeue names them."""
        lines = self.run(["squeue", "-h", "-o", "\t".join(JOB_FIELDS.values())]).stdout.splitlines()
        return [dict(zip(JOB_FIELDS, line.split("\t"), strict=True)) for line in lines]

    def wait_for_jobs(self, count: int, seconds: float = 60, state: str = "RUNNING") -> list[dict[str, str]]:
        """Wait until at least `count` jobs are in this state; returns them."""
        wait_until(lambda: sum(job["state"] == state for job in self.jobs()) >= count, seconds, f"{count} {state} jobs")
        return [job for job in self.jobs() if job["state"] == state]

    def wait_until_idle(self, seconds: float = 60) -> None:
        """Wait until every node is up and has no job."""
        wait_until(self._all_idle, seconds, "idle nodes")

    def processes(self, node: str) -> set[int]:
        """Step daemons of a node and everything its jobs started."""
        marks = {"SLURM_CONF": str(self.places.slurm_conf), "SLURMD_NODENAME": node}
        steps = processes_that_hold(self.places.directory / "log" / f"slurmd-{node}.log")
        return descendants(processes_with(marks) | steps)

    def crash(self, node: str) -> None:
        """Power loss: the node's daemon and every process of its jobs die at once."""
        daemon = self.daemons.pop(f"slurmd-{node}")
        pids = self.processes(node)
        kill_all([daemon.process.pid, *pids])
        daemon.kill()
        kill_all(self.processes(node))

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self.spawn(f"slurmd-{node}", ["slurmd", "-D", "-N", node])

    def start_controller(self) -> None:
        """Start slurmctld and wait until it answers."""
        self.spawn("slurmctld", ["slurmctld", "-D"])
        wait_until(lambda: "UP" in self.run(["scontrol", "ping"], check=False).stdout, 60, "slurmctld")

    def stop_controller(self) -> None:
        """Stop slurmctld in order: it saves its state."""
        self.daemons.pop("slurmctld").stop(30)

    def start_accounting(self) -> None:
        """Start slurmdbd again."""
        accounting.start_slurmdbd(self)

    def stop_accounting(self) -> None:
        """Stop slurmdbd; the database stays."""
        self.daemons.pop("slurmdbd").stop(30)

    def spawn(self, name: str, command: list[str]) -> None:
        """Start a daemon under a name."""
        log = self.places.directory / "log" / f"{name}.out"
        self.daemons[name] = Daemon(name, command, log, self.environment)

    def _all_idle(self) -> bool:
        done = self.run(["sinfo", "-h", "-N", "-o", "%N %t"], check=False)
        idle = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" idle")}
        return idle == set(self.settings.node_names)

    def _leftovers(self) -> set[int]:
        return {pid for node in self.settings.node_names for pid in self.processes(node)} - self._daemon_ids()

    def _daemon_ids(self) -> set[int]:
        return {os.getpid(), *(daemon.process.pid for daemon in self.daemons.values())}

    def _start_munge(self) -> None:
        here = self.places.directory
        key = here / "munge" / "key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        options = [f"--socket={self.places.munge}", f"--key-file={key}", f"--pid-file={here}/run/munged.pid"]
        options += [f"--log-file={here}/log/munged.log", f"--seed-file={here}/munge/seed", "--num-threads=2"]
        self.spawn("munged", ["munged", "-F", "-f", *options])
        wait_until(lambda: self.succeeds(["munge", "-S", str(self.places.munge), "-n"]), 20, "munged")

    def _write_files(self) -> None:
        here, settings = self.places.directory, self.settings
        here.mkdir(parents=True, exist_ok=True)
        here.chmod(0o755)
        folders = ("etc", "run", "log", "state", "spool", "munge", "mysql", "dev", "bin")
        for folder in (*folders, *(f"spool/{name}" for name in settings.node_names)):
            (here / folder).mkdir(mode=0o755)
        (here / "munge").chmod(0o711)
        self.places.slurm_conf.write_text(configuration.slurm_conf(settings, self.places))
        (here / "etc" / "gres.conf").write_text(configuration.gres_conf(settings, self.places))
        database = here / "etc" / "slurmdbd.conf"
        database.touch(0o600)
        database.write_text(configuration.slurmdbd_conf(self.places))
        for number in range(settings.gpus):
            (here / "dev" / f"gpu{number}").symlink_to("/dev/null")
        if settings.client_wrappers:
            self._wrap_clients()

    def _wrap_clients(self) -> None:
        """Snakemake's jobs start srun without SLURM_CONF, which a cluster with /etc/slurm/slurm.conf can do without."""
        for name in CLIENTS:
            program = shutil.which(name, path=SYSTEM_PATH)
            if program:
                wrapper = self.places.directory / "bin" / name
                wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.places.slurm_conf} exec {program} "$@"\n')
                wrapper.chmod(0o755)


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
