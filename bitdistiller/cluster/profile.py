"""`bitdistiller profile install slurm`: the user's own Snakemake profile, fitted to the cluster it is installed on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bitdistiller.cluster import fitting
from bitdistiller.cluster.accounts import check_account
from bitdistiller.cluster.partition_file import listed_partitions
from bitdistiller.cluster.polling import FIRST_POLL
from bitdistiller.cluster.profile_text import differences, quoted, render, template
from bitdistiller.cluster.slurm import ClusterFacts, SlurmUnavailable, cluster_facts
from bitdistiller.errors import InputError
from bitdistiller.stages.files import write_text

NAME = "profile.v9+.yaml"
PARTITIONS = "partitions.yaml"
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
    limits = _fit(wanted, facts)
    notes += check_account(wanted.account)
    delay, said = fitting.delay(facts)
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


def _fit(wanted: Wanted, facts: ClusterFacts | None) -> dict[str, int]:
    """The limits of the partitions that jobs will be in; refuses partitions and GPUs that are not there."""
    listed = listed_partitions(wanted.partitions) if wanted.partitions else []
    default = facts.default_partition.name if facts and facts.default_partition else ""
    of_all = wanted.partition or default
    given = {"--partition": [wanted.partition], "--gpu-partition": [wanted.gpu_partition], "--partitions": listed}
    fitting.check_partitions({option: [*filter(None, names)] for option, names in given.items()}, facts)
    fitting.check_gres(wanted.gpu_gres, listed or [*filter(None, [wanted.gpu_partition or of_all])], facts)
    used = listed or [*filter(None, {of_all, wanted.gpu_partition})]
    return fitting.limits(used, facts, largest=bool(listed))


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
