"""A packed checkpoint and its card in one directory."""

from __future__ import annotations

import shutil
from pathlib import Path

from bitdistiller.config import Experiment
from bitdistiller.errors import InputError
from bitdistiller.plan import Plan
from bitdistiller.reporting.card import cards
from bitdistiller.reporting.collect import collect
from bitdistiller.stages import DIGEST
from bitdistiller.stages.digest import hash_file
from bitdistiller.stages.files import read_json, write_text


def publish(experiment: Experiment, run: str, destination: Path, results: Path) -> list[str]:
    """
    Copy the checkpoint of a run to `destination`, with its card as README.md; returns what to say of it.

    Raises InputError for a run that is not of the experiment, is not finished or differs from its digest, and for a
    destination that is not empty. Nothing is written then.
    """
    if run not in experiment.runs:
        raise InputError(f"{run}: no such run; the experiment has {', '.join(experiment.runs)}")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise InputError(f"{destination}: is not empty; give a new directory")
    card = cards(experiment, collect(experiment, results), results).get(run)
    if card is None:
        raise InputError(f"{run}: has no finished checkpoint; accepted: quantised runs that `export` has packed")
    source = Plan(experiment, results).export(run)
    for name, file in read_json(source / DIGEST)["files"].items():
        if not (source / name).is_file() or hash_file(source / name) != file["sha256"]:
            raise InputError(f"{source / name}: differs from {DIGEST}; export the run again")
    hidden = shutil.ignore_patterns(".*")
    shutil.copytree(
        source / "checkpoint", destination, ignore=hidden, dirs_exist_ok=True, copy_function=shutil.copyfile
    )
    write_text(destination / "README.md", card)
    size = sum(path.stat().st_size for path in destination.rglob("*"))
    return [f"{destination}: {run}, {size / 1e6:.1f} MB, card in README.md; replace PATH in it by where you put it"]
