"""The whole examination."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bitdistiller.cluster.doctor.checks import CHECKS
from bitdistiller.cluster.doctor.finding import Finding
from bitdistiller.cluster.doctor.probing import probe_all
from bitdistiller.cluster.doctor.profile_file import UNSET, Profile
from bitdistiller.cluster.doctor.situation import Situation, describe, question_of
from bitdistiller.cluster.doctor.targets import targets
from bitdistiller.plan import Plan


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    partition: str | None = None
    account: str | None = None
    python: str | None = None
    jobs: bool = True
    patience: float = 10.0
    """Minutes that a probe may wait for its start."""
    folder: Path = Path("work/doctor")


def diagnose(plan: Plan, profile: Profile, options: Options) -> list[Finding]:
    """Look, probe and check; in the order of the registry."""
    question = question_of(plan, profile, options.python)
    situation = describe(plan, profile, question, options.partition)
    if situation.facts is None:
        situation = replace(situation, unprobed="no cluster to submit to")
    elif not options.jobs:
        situation = replace(situation, unprobed="no jobs were submitted (--no-jobs)")
    else:
        wanted = [t for t in targets(list(situation.demands), profile.settings.gpu_gres) if t.partition]
        account = options.account or profile.text("slurm_account").replace(UNSET, "") or None
        folder = options.folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        situation = replace(situation, probes=probe_all(wanted, question, folder, account, options.patience))
    return examine(situation)


def examine(situation: Situation) -> list[Finding]:
    """What all checks say about a situation."""
    return [finding for check in CHECKS for finding in check(situation)]


def exit_code(findings: list[Finding]) -> int:
    """1 when something is an error, else 0."""
    return int(any(finding.level == "error" for finding in findings))
