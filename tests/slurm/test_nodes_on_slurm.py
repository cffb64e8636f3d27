"""One training on two nodes: the curve of one process, and the same bytes after a node is lost."""

import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from helpers.mixes import make_recipe, tokenize_mix
from helpers.trainings import SAME, assert_same, saved, state
from slurm.project.inputs import SAVE_EVERY
from slurm.project.project import Project
from slurm.project.work import attempts, repeated_steps
from slurm.rig.cluster import Cluster
from slurm.rig.daemons import wait_until
from slurm.rig.settings import Settings

from bitdistiller.distillation import checkpoints
from bitdistiller.recipes import as_text
from bitdistiller.stages import verify
from bitdistiller.stages.files import read_json, read_json_lines

EVERY = 4


@pytest.fixture(scope="module")
def nodes(make_cluster) -> Iterator[Cluster]:
    """Three nodes, so that a job on two goes on when one is lost."""
    with pytest.MonkeyPatch.context() as patch:
        if not resolves("c1"):  # it does inside of tests/slurm/enclosed
            patch.setenv("MASTER_ADDR", "127.0.0.1")
        cluster = make_cluster(Settings(nodes=3, accounting=False))
        yield cluster
        cluster.stop()


def resolves(name: str) -> bool:
    """Whether a host name has an address."""
    try:
        return bool(socket.gethostbyname(name))
    except OSError:
        return False


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
        script.write_text(f"#!/bin/sh\necho $$ > {output}.pid\nexec {command(output, *options, **training)}\n")
        asked = [f"--nodes={count}", f"--ntasks={count}", "--mem=2000", "--requeue", f"--output={output}.log"]
        return nodes.run(["sbatch", "--parsable", *asked, str(script)]).stdout.strip()

    return call


@pytest.fixture(scope="module")
def whole(submit, nodes, tmp_path_factory) -> Path:
    """The output of a training on two nodes that nothing happened to."""
    output = tmp_path_factory.mktemp("whole") / "train"
    submit(output)
    finish(nodes, output)
    return output


def finish(cluster: Cluster, output: Path, seconds: float = 180) -> None:
    """Wait until no job is left; the training has ended well."""
    wait_until(lambda: not cluster.jobs(), seconds, "the end of all jobs")
    log = Path(f"{output}.log").read_text()
    assert (output / "digest.json").exists(), log
    verify(output)


def node_of(cluster: Cluster, number: int) -> str:
    """Name of one of the nodes of the only job that runs."""
    used = next(job["node"] for job in cluster.jobs() if job["state"] == "RUNNING")
    return cluster.run(["scontrol", "show", "hostnames", used]).stdout.split()[number]


@contextmanager
def lost(cluster: Cluster, number: int) -> Iterator[None]:
    """One of the nodes of the job that runs is lost; it comes back at the end."""
    name = node_of(cluster, number)
    cluster.crash(name)
    yield
    cluster.start_node(name)
    cluster.wait_until_idle()


def test_two_nodes_have_the_curve_of_one(submit, nodes, whole, tmp_path):
    submit(tmp_path / "one", count=1)
    finish(nodes, tmp_path / "one")
    details = [read_json(path / "provenance.json")["details"] for path in (whole, tmp_path / "one")]
    assert [found["engine"] for found in details] == ["ddp", "single"]
    ours, theirs = (list(read_json_lines(path / "history.jsonl")) for path in (whole, tmp_path / "one"))
    assert len(ours) == len(theirs) > 24
    for found, wanted in zip(ours, theirs, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("number", [1, 0], ids=["another-node", "first-node"])
def test_a_lost_node(number, submit, nodes, whole, tmp_path):
    output = tmp_path / "train"
    submit(output)
    wait_until(lambda: EVERY in saved(output), 120, "the first checkpoint")
    with lost(nodes, number):
        finish(nodes, output)
    assert_same(output, whole)
    assert 0 <= max(repeated_steps(state(output).parent)) <= EVERY


def test_asked_to_stop_it_saves_and_the_next_job_goes_on(submit, nodes, whole, tmp_path):
    output = tmp_path / "train"
    for step, by_pid in ((EVERY, True), (3 * EVERY, False)):
        job = submit(output)
        wait_until(lambda step=step: max(saved(output), default=0) >= step, 120, "a checkpoint")
        if by_pid:
            os.kill(int(Path(f"{output}.pid").read_text()), signal.SIGTERM)
        else:
            nodes.run(["scancel", "--signal=TERM", job])  # the step's tasks, on both nodes
        wait_until(lambda: not nodes.jobs(), 150, "the end of the job")
        assert exit_code(nodes, job) == "75:0"
    submit(output)
    finish(nodes, output)
    assert_same(output, whole)
    assert [record["outcome"] for record in attempts(state(output).parent)] == ["deadline", "deadline", "finished"]
    assert sum(repeated_steps(state(output).parent)) == 0


def test_bad_input_ends_the_job_with_its_code(submit, nodes, tmp_path):
    job = submit(tmp_path / "train", "--set", "quantization.group_size=48")
    wait_until(lambda: not nodes.jobs(), 150, "the end of the job")
    assert exit_code(nodes, job) == "2:0"
    assert "group_size" in (tmp_path / "train.log").read_text()


def exit_code(cluster: Cluster, job: str) -> str:
    """Exit code and signal of a job that ended a moment ago."""
    words = cluster.run(["scontrol", "show", "job", job]).stdout.split()
    return next(word.removeprefix("ExitCode=") for word in words if word.startswith("ExitCode="))


@pytest.fixture
def project(undisturbed: Project, nodes: Cluster, project_directory: Path) -> Project:
    """A finished project with two more runs, on two nodes; its first run is to be on two nodes from now on."""
    project = undisturbed.copy(project_directory, nodes)
    config = yaml.safe_load(project.path("config.yaml").read_text())
    config["trainings"]["pair"] = config["trainings"]["short"] | {"micro_batch_size": 2, "max_steps": 30}
    one = config["runs"]["int2"] | {"nodes": 2}
    config["runs"] = {"int2": one, "first": one | {"training": "pair"}, "second": one | {"training": "pair"}}
    project.path("config.yaml").write_text(yaml.safe_dump(config))
    return project


def test_the_rule_goes_on_when_the_first_node_is_lost(project, nodes):
    before = project.path("results/tiny/int2/train/digest.json").stat().st_mtime_ns
    outputs = [project.path(f"results/tiny/{run}/train") for run in ("int2", "first", "second")]
    works = [project.path(f"work/tiny/{run}/train") for run in ("first", "second")]
    targets = [f"results/tiny/{run}/train/digest.json" for run in ("int2", "first", "second")]
    with project.start("--jobs", "1", *targets) as command:
        command.wait_for(lambda: any(checkpoints.steps(work / "state") for work in works), "a checkpoint")
        disturbed = next(work for work in works if work.exists())
        with lost(nodes, 0):
            command.finish()
    for name in SAME:
        assert (outputs[1] / name).read_bytes() == (outputs[2] / name).read_bytes()
    assert [record["outcome"] for record in attempts(disturbed) if "outcome" in record][-1] == "finished"
    assert len(attempts(disturbed)) == 2
    assert max(repeated_steps(disturbed)) <= SAVE_EVERY
    assert read_json(outputs[1] / "provenance.json")["details"]["engine"] == "ddp"
    assert outputs[0].joinpath("digest.json").stat().st_mtime_ns == before
