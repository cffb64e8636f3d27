"""`--sdm apptainer`, with a stand-in that notes what it was asked and runs the command without a container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.workflow_copy import copy_of_the_repository

STAND_IN = """#!/bin/bash
if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi
printf '%s ' "$@" | tr '\\n' ' ' >> "$(dirname "$0")/asked"; echo >> "$(dirname "$0")/asked"
while [ "$1" != -c ]; do shift; done
exec bash -c "$2"
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository; the stand-in is in its folder `bin`."""
    directory = copy_of_the_repository(tmp_path / "copy")
    (directory / "bin").mkdir()
    (directory / "bin" / "apptainer").write_text(STAND_IN)
    (directory / "bin" / "apptainer").chmod(0o755)
    return directory


def snakemake(copy: Path) -> subprocess.CompletedProcess[str]:
    """Run the workflow's first evaluation in containers."""
    target = "results/m/full/evaluation/one/digest.json"
    arguments = ["--cores", "1", "--sdm", "apptainer", "--apptainer-args", "--nv --bind /scratch", "--", target]
    path = f"{copy / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)


def test_jobs_run_in_the_image_of_their_kind_of_work(copy: Path) -> None:
    image = copy / "envs" / "images" / "train.sif"
    image.parent.mkdir()
    image.touch()
    done = snakemake(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = (copy / "bin" / "asked").read_text().splitlines()
    assert len(asked) == 2
    for line, stage in zip(asked, ("pretrain-demo", "evaluate"), strict=True):
        assert f"exec --home {copy} --nv --bind /scratch" in line.replace("'", "")
        assert f" {image} " in line
        assert f"python -m bitdistiller {stage}" in line


def test_a_missing_image_ends_it_before_the_first_job(copy: Path) -> None:
    done = snakemake(copy)
    assert done.returncode != 0
    assert f"error: {copy}/envs/images/train.sif: no such image" in done.stdout + done.stderr
    assert not (copy / "bin" / "asked").exists()
