"""A training on two nodes as a submitted job: asked to save in the middle, it goes on and ends with the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.mixes import make_recipe, tokenize_mix
from helpers.trainings import assert_same, saved
from slurm.rig.cluster import Cluster
from slurm.rig.daemons import wait_until

from bitdistiller.cluster.attach import SubmittedJob
from bitdistiller.cluster.request import Request
from bitdistiller.cluster.submit import submit
from bitdistiller.recipes import as_text

STEPS = 60


@pytest.mark.slow
def test_a_training_on_two_nodes_comes_back_and_is_the_same(cluster: Cluster, tiny_model, tmp_path, monkeypatch):
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    tokens = tokenize_mix(tmp_path / "tokens", tiny_model)
    recipe = as_text(make_recipe(max_steps=STEPS, engine="ddp"))

    def train(output: Path) -> SubmittedJob:
        command = ["train", "--model", str(tiny_model), "--tokens", str(tokens), "--output", str(output)]
        request = Request(nodes=2, cpus=1, mem_mb=2000, minutes=20)
        job = submit([*command, "--recipe", recipe], request, tmp_path / "jobs", "slurm")
        return SubmittedJob(job.job_id, tmp_path / "jobs")

    disturbed = train(tmp_path / "disturbed")
    wait_until(lambda: (tmp_path / "disturbed.work").exists() and saved(tmp_path / "disturbed"), 150, "a checkpoint")
    assert not (tmp_path / "disturbed" / "digest.json").exists()
    cluster.run(["scancel", "--signal=USR2", disturbed.job_id])
    assert disturbed.wait(lambda _: None) == 0, disturbed.log.read_text()
    assert train(tmp_path / "undisturbed").wait(lambda _: None) == 0
    assert_same(tmp_path / "disturbed", tmp_path / "undisturbed")
    record = cluster.run(["scontrol", "show", "job", "-o", disturbed.job_id]).stdout
    assert "Restarts=1 " in record
