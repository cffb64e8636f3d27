"""`bitdistiller profile install slurm`: the user's own Snakemake profile, fitted to the cluster it is installed on."""

from __future__ import annotations

import getpass
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bitdistiller.cluster import fitting
from bitdistiller.cluster.polling import FIRST_POLL
from bitdistiller.cluster.profile_text import differences, quoted, render, template
from bitdistiller.cluster.slurm import ClusterFacts, SlurmUnavailable, ask, cluster_facts
from bitdistiller.errors import InputError
from bitdistiller.stages.files import write_text

NAME = "profile.v9+.yaml"
PARTITIONS = "partitions.yaml"
EXAMPLE = "partitions.example.yaml"
HEADING = """Written by `bitdistiller profile install slurm`; used by `snakemake --profile slurm`.
docs/cluster.md says why each line is here."""


@dataclass(frozen=True)
class Wanted:
    """What a profile is to say; texts that are empty are left to the cluster's defaults."""

    account: str = ""
    partition: str = ""
    gpu_gres: str = ""
    gpu_partition: str = ""
    gpus: int = 32
    """GPUs in flight at most."""
    jobs: int = 64
    """Jobs in the queue at most."""
    runtime: int = 60
    """Minutes of a job whose stage names none."""
    sdm: Literal["", "conda", "apptainer"] = ""
    """Snakemake's software deployment method."""
    partitions: Path | None = None
    """File of partitions and their limits to choose from, instead of `partition` and `gpu_partition`."""


def user_profile() -> Path:
    """The directory in which Snakemake looks for `--profile slurm`."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "snakemake" / "slurm"


def install(wanted: Wanted, *, root: Path, into: Path | None = None, force: bool = False) -> list[str]:
    """
    Write the profile and say what was written, found and could not be found out, one line each.

    Raises InputError for partitions, accounts and GPU names that the cluster does not have, for a MinJobAge that fits
    no poll, and for a profile that is there and differs (unless `force`).
    """
    directory = into or user_profile()
    _check_names(wanted)
    facts, notes = _facts()
    fitting.check(wanted.partition, wanted.gpu_partition, wanted.gpu_gres, facts)
    notes += _check_account(wanted.account)
    delay, said = fitting.delay(facts)
    limits = fitting.limits(wanted.partition, wanted.gpu_partition, facts)
    text = render(template(root), HEADING, _options(wanted, delay), _resources(wanted, limits))
    path = directory / NAME
    _refuse_to_overwrite(path, text, force)
    if wanted.partitions:
        write_text(directory / PARTITIONS, wanted.partitions.read_text(encoding="utf-8"))
    write_text(path, text)
    return [f"{path}: written", *said, *notes]


def _check_names(wanted: Wanted) -> None:
    if wanted.partitions and (wanted.partition or wanted.gpu_partition):
        raise InputError("--partitions: chooses the partition of every job; leave --partition and --gpu-partition out")
    if wanted.partitions and not wanted.partitions.is_file():
        raise InputError(f"--partitions {wanted.partitions}: no such file; profiles/slurm/{EXAMPLE} shows one")
    for option in ("account", "partition", "gpu_partition"):
        name = getattr(wanted, option)
        if name and not re.fullmatch(r"[\w.@:+-]+", name):
            raise InputError(f"--{option.replace('_', '-')} {name!r}: accepted: letters, digits and any of . _ @ : + -")


def _facts() -> tuple[ClusterFacts | None, list[str]]:
    try:
        return cluster_facts(), []
    except SlurmUnavailable as error:
        what = "partitions, GPU names and MinJobAge are not checked"
        return None, [f"{error}: {what}; the first poll is after {FIRST_POLL} s, the template's value"]


def _check_account(account: str) -> list[str]:
    if not account:
        return []
    user = getpass.getuser()
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=Account"]
    try:
        known = sorted({line.strip() for line in ask(command).splitlines() if line.strip()})
    except SlurmUnavailable as error:
        return [f"account {account} is not checked: {error}"]
    if known and account.lower() not in (name.lower() for name in known):
        raise InputError(f"--account {account}: {user} has no such account; accepted: {', '.join(known)}")
    return [] if known else [f"account {account} is not checked: SLURM knows no accounts of {user}"]


def _options(wanted: Wanted, delay: int) -> dict[str, str]:
    options = {
        "jobs": str(wanted.jobs),
        "resources": f"{{gpu_slots: {wanted.gpus}}}",
        "slurm-init-seconds-before-status-checks": str(delay),
    }
    if wanted.sdm:
        options["software-deployment-method"] = wanted.sdm
    if wanted.sdm == "apptainer":
        options["apptainer-args"] = '"--nv" # GPUs inside of the container'
    if wanted.partitions:
        options["slurm-partition-config"] = f"{PARTITIONS} # beside this file"
    return options


def _resources(wanted: Wanted, limits: dict[str, int]) -> dict[str, str]:
    texts = {
        "slurm_account": wanted.account,
        "slurm_partition": wanted.partition,
        "gpu_gres": wanted.gpu_gres,
        "gpu_partition": wanted.gpu_partition,
    }
    named = {key: quoted(value) for key, value in texts.items() if value}
    return {"runtime": str(wanted.runtime)} | named | {key: str(value) for key, value in limits.items()}


def _refuse_to_overwrite(path: Path, text: str, force: bool) -> None:
    if not path.exists() or force:
        return
    changed = differences(path.read_text(encoding="utf-8"), text)
    if changed:
        lines = "\n".join(changed)
        raise InputError(f"{path}: there is another profile; --force replaces it. Lines that differ:\n{lines}")
