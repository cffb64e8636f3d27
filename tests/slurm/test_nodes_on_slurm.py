"""One training on two nodes: the curve of one process, and the same bytes after a node is lost."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.mixes import make_recipe, tokenize_mix
from helpers.trainings import assert_same, saved, state
from slurm.rig.cluster import Cluster
from slurm.rig.daemons import wait_until
from slurm.rig.settings import Settings

from bitdistiller.recipes import as_text
from bitdistiller.stages import verify
from bitdistiller.stages.files import read_json, read_json_lines

EVERY = 4


@pytest.fixture(scope="module")
def nodes(make_cluster) -> Iterator[Cluster]:
    """Three nodes, so that a job on two goes on when one is lost."""
    cluster = make_cluster(Settings(nodes=3, accounting=False))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def tokens(tiny_model, tmp_path_factory) -> Path:
    """Output directory of `tokenize`."""
    return tokenize_mix(tmp_path_factory.mktemp("tokens") / "tokens", tiny_model)


@pytest.fixture(scope="module")
def command(tiny_model, tokens):
    """`command(output, *options, **training)`: the command line of a training that asks for two nodes."""

    def make(output, *options, **training):
        recipe = as_text(make_recipe(**{"evaluate_every": EVERY, "batch_size": 6, "max_steps": 24, **training}))
        given = ["--model", tiny_model, "--tokens", tokens, "--output", output, "--recipe", recipe]
        words = [sys.executable, "-m", "bitdistiller", "train", "--nodes", 2, *given, *options]
        return shlex.join(map(str, words))

    return make


@pytest.fixture(scope="module")
def submit(nodes, command):
    """`submit(output, *options, count=2, **training)`: start it as a job on `count` nodes; the job's id."""

    def call(output, *options, count=2, **training):
        script = output.with_suffix(".sh")
        script.write_text(f"#!/bin/sh\nexec {command(output, *options, **training)}\n")
        asked = [f"--nodes={count}", f"--ntasks={count}", "--mem=2000", "--requeue", f"--output={output}.log"]
        return nodes.run(["sbatch", "--parsable", *asked, str(script)]).stdout.strip()

    return call


@pytest.fixture(scope="module")
def undisturbed(submit, nodes, tmp_path_factory) -> Path:
    """The output of a training on two nodes that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed") / "train"
    submit(output)
    finish(nodes, output)
    return output


def finish(cluster: Cluster, output: Path, seconds: float = 180) -> None:
    """Wait until no job is left; the training has ended well."""
    wait_until(lambda: not cluster.jobs(), seconds, "the end of all jobs")
    log = Path(f"{output}.log").read_text()
    assert (output / "digest.json").exists(), log
    verify(output)


def steps_of_all_attempts(output: Path) -> list[int]:
    """The steps that were made, repeated ones too."""
    events = read_json_lines(state(output).parent / "history.jsonl")
    return [event["step"] for event in events if "loss" in event]


def test_two_nodes_have_the_curve_of_one(submit, nodes, undisturbed, tmp_path):
    submit(tmp_path / "one", count=1)
    finish(nodes, tmp_path / "one")
    details = [read_json(path / "provenance.json")["details"] for path in (undisturbed, tmp_path / "one")]
    assert [found["engine"] for found in details] == ["ddp", "single"]
    ours, theirs = (list(read_json_lines(path / "history.jsonl")) for path in (undisturbed, tmp_path / "one"))
    assert len(ours) == len(theirs) > 24
    for found, wanted in zip(ours, theirs, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("lost", [1, 0], ids=["another-node", "first-node"])
def test_a_lost_node(lost, submit, nodes, undisturbed, tmp_path):
    output = tmp_path / "train"
    submit(output)
    wait_until(lambda: EVERY in saved(output), 120, "the first checkpoint")
    used = nodes.run(["squeue", "-h", "-o", "%N"]).stdout.strip()
    names = nodes.run(["scontrol", "show", "hostnames", used]).stdout.split()
    nodes.crash(names[lost])
    try:
        finish(nodes, output)
    finally:
        nodes.start_node(names[lost])
        nodes.wait_until_idle()
    assert_same(output, undisturbed)
