"""Trainings on several nodes, without SLURM: who launches what, where launchers meet, what srun is told and returns."""

import itertools
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.processes import finish, start, wait_for

from bitdistiller.distillation import nodes, processes, slurm_step
from bitdistiller.distillation.launcher import verdict
from bitdistiller.distillation.nodes import agree, coded, job_alone, nodes_here, plain_code, start_step
from bitdistiller.distillation.processes import Place, free_port
from bitdistiller.errors import InputError, TryAgain

STEP = "from bitdistiller.distillation.nodes import start_step; import sys; sys.exit(start_step(2, ['train']))"


def program(folder, name, script):
    """A shell script on the path of the commands to come."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A job of SLURM as Snakemake leaves it: an id, and clients on the path."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SRUN_", "MASTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    program(tmp_path, "srun", 'echo "$@"')
    program(tmp_path, "squeue", '[ "$*" = "--noheader --jobs 7 --format %D" ] && echo 3')
    return tmp_path


@pytest.mark.parametrize(
    ("tasks", "on", "processes", "launchers"),
    [(1, 1, False, False), (4, 1, True, False), (4, 2, True, False), (2, 2, False, True)],
)
def test_tasks_of_a_step(tasks, on, processes, launchers):
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": str(on)}
    assert slurm_step.tasks_are_processes(step) == processes
    assert slurm_step.tasks_are_launchers(step) == launchers
    outside = {name: value for name, value in step.items() if name != "SLURM_STEP_ID"}
    assert not slurm_step.tasks_are_processes(outside)
    assert not slurm_step.tasks_are_launchers(outside)


def test_how_many_nodes_there_are(job):
    assert nodes_here(2, os.environ) == 2
    assert nodes_here(4, os.environ) == 3
    assert nodes_here(2, {**os.environ, "SLURM_JOB_NUM_NODES": "1"}) == 1
    program(job, "squeue", "exit 1")
    with pytest.raises(TryAgain, match="how many nodes job 7 has"):
        nodes_here(2, os.environ)
    assert nodes_here(2, {"PATH": str(job)}) == 1  # no job
    assert nodes_here(2, {"PATH": "/nowhere", "SLURM_JOB_ID": "7"}) == 1


def test_on_a_laptop_it_trains_here(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    monkeypatch.setattr(processes, "visible_gpus", lambda: 1)
    assert nodes.start(None, "auto", 2) is None
    with pytest.raises(InputError, match=r"^--nodes 2: the engine single is one process; accepted: ddp"):
        nodes.start(None, "single", 2)


def test_a_step_gets_no_more_of_slurm_than_the_job():
    kept = {"SLURM_JOB_ID": "7", "SLURM_CONF": "/etc/s", "PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0,1"}
    dropped = {"SLURM_NNODES": "1", "SLURM_CPU_BIND": "quiet", "SRUN_CPUS_PER_TASK": "3", "SLURM_STEP_ID": "0"}
    assert job_alone({**kept, **dropped}) == kept


def test_the_highest_code_of_launchers_is_their_verdict():
    for codes in itertools.product((0, 1, 2, 3, 75, 137, 143), repeat=2):
        signals = [128 - code if code > 128 else code for code in codes]
        highest = max(coded(code) for code in codes)
        expected = verdict(signals)
        found = plain_code(highest)
        assert found == expected or {found, expected} <= {1, 3} or {found, expected} <= {137, 143}, codes
    assert [plain_code(coded(code)) for code in (0, 1, 2, 3, 50, 75, 137)] == [0, 1, 2, 3, 50, 75, 137]


@pytest.mark.parametrize(("said", "expected"), [(0, 0), (75, 75), (76, 1), (255, 2), (137, 137), (1, 1)])
def test_what_srun_returns(job, said, expected):
    program(job, "srun", f"exit {said}")
    assert start_step(2, ["train"]) == expected


def test_a_step_over_the_nodes(job, capfd):
    assert start_step(2, ["train", "--nodes", "2"]) == 0
    words = capfd.readouterr().out.split()
    assert words[-3:] == ["train", "--nodes", "2"]
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--overlap", "--kill-on-bad-exit=0"} <= set(words)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_srun_is_told_to_stop_by_the_signal_that_it_passes_on(job, number):
    program(job, "srun", f"trap 'exit 75' USR1; trap 'exit 9' TERM; touch {job}/ready; while :; do sleep 0.05; done")
    step = start("-c", STEP)
    wait_for((job / "ready").exists, step)
    step.send_signal(number)
    assert finish(step) == (75, "")


def test_launchers_agree_on_ranks_whatever_they_start():
    port, counts = free_port(), (1, 4, 2)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(agree, "127.0.0.1", port, node, 3, count) for node, count in enumerate(counts)]
        places = [future.result()[0] for future in asked]
    assert len({place.port for place in places}) == 1
    found = [(place.first, place.count, place.size, place.address) for place in places]
    assert found == [(0, 1, 7, "127.0.0.1"), (1, 4, 7, "127.0.0.1"), (5, 2, 7, "127.0.0.1")]


def test_environments_of_a_place():
    first, second = Place(3, 2, 5, "c1", 4242).environments()
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert [first[name] for name in names] == ["3", "0", "5", "2", "c1", "4242"]
    assert [second[name] for name in names[:2]] == ["4", "1"]


def test_launchers_that_do_not_meet_try_again(job, monkeypatch):
    program(job, "scontrol", "printf 'c1\\nc2\\n'")
    step = {"JOB_NODELIST": "c[1-2]", "JOB_NUM_NODES": 2, "NTASKS": 2, "STEP_ID": 0, "PROCID": 0, "NODEID": 0}
    for name, value in (step | {"STEP_NUM_TASKS": 2, "STEP_NUM_NODES": 2, "LOCALID": 0}).items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setattr(nodes, "MEETING_MINUTES", 0.02)
    with pytest.raises(TryAgain, match="node 1 did not meet the others at 127"):
        nodes.start(1, "auto", 2)
    with pytest.raises(InputError, match="single is one process, this step has several nodes"):
        nodes.start(1, "single", 1)
