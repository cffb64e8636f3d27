"""The launcher: what it finds in the environment, what it starts, how it ends; its children here are small scripts."""

import os
import signal
import sys
import time

import pytest
from helpers.processes import finish, start, wait_for

from bitdistiller.distillation import launcher, processes
from bitdistiller.distillation.launcher import verdict
from bitdistiller.distillation.processes import TORCH_VARIABLES, adopt_environment, start_processes, wanted_processes
from bitdistiller.distillation.slurm_step import step_port
from bitdistiller.errors import InputError

NOTE = "import os, sys, time, signal, pathlib; rank = os.environ['RANK']; here = pathlib.Path(sys.argv[1]);"
NOTE += "(here / f'{rank}.part').write_text(str(os.getpid())); (here / f'{rank}.part').rename(here / rank);"
LAUNCH = "import sys; from bitdistiller.distillation.processes import start_processes;"
LAUNCH += "sys.exit(start_processes(2, [sys.executable, '-c', sys.argv[1], sys.argv[2]]))"
FOLLOW = "from bitdistiller.distillation.processes import follow_launcher; follow_launcher();"
STOP = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75));"


@pytest.fixture
def outside(monkeypatch):
    """No launcher, no scheduler."""
    for name in [*TORCH_VARIABLES, *(name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_")))]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def child(tmp_path, code):
    return [sys.executable, "-c", NOTE + code, str(tmp_path)]


def is_gone(tmp_path, rank):
    try:
        os.kill(int((tmp_path / str(rank)).read_text()), 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("codes", "received", "expected"),
    [
        ([0, 0], None, 0),
        ([75, 75], signal.SIGTERM, 75),
        ([75, 0], None, 75),
        ([1, 2], None, 2),
        ([75, 2], None, 2),
        ([75, 1], None, 1),
        ([1, -9], None, 137),
        ([-15, 1], signal.SIGTERM, 75),
        ([-15, 1], None, 143),
        ([-15, 2], signal.SIGTERM, 2),
    ],
)
def test_one_exit_code_for_all(codes, received, expected):
    assert verdict(codes, received) == expected


def test_every_process_knows_its_place(tmp_path):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    code = f"(here / ('env' + rank)).write_text(' '.join(os.environ[name] for name in {names}))"
    assert start_processes(2, child(tmp_path, code)) == 0
    found = [(tmp_path / f"env{rank}").read_text().split() for rank in range(2)]
    assert [values[:5] for values in found] == [[str(r), str(r), "2", "2", "127.0.0.1"] for r in range(2)]
    assert found[0][5:] == found[1][5:]


@pytest.mark.parametrize(("end", "expected"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_when_one_fails_the_others_end_within_the_grace_time(tmp_path, monkeypatch, end, expected):
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 0.2)
    code = f"time.sleep(60) if rank == '0' else {end}"
    before = signal.getsignal(signal.SIGTERM)
    assert start_processes(2, child(tmp_path, code)) == expected
    assert is_gone(tmp_path, 0)
    assert is_gone(tmp_path, 1)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("listening", ["01", "1", ""])
def test_sigterm_goes_to_all(tmp_path, listening):
    code = f"{NOTE}\nif rank in '{listening}': {STOP}\n(here / ('ready' + rank)).touch()\ntime.sleep(60)"
    launcher = start("-c", LAUNCH, code, tmp_path)
    wait_for(lambda: all((tmp_path / f"ready{rank}").exists() for rank in range(2)), launcher)
    launcher.send_signal(signal.SIGTERM)
    assert finish(launcher) == (75, "")
    assert is_gone(tmp_path, 0)
    assert is_gone(tmp_path, 1)


def test_children_of_a_killed_launcher_end_by_themselves(tmp_path):
    launcher = start("-c", LAUNCH, f"{FOLLOW}{NOTE}time.sleep(60)", tmp_path)
    wait_for(lambda: all((tmp_path / str(rank)).exists() for rank in range(2)), launcher)
    launcher.kill()
    launcher.wait()
    begin = time.monotonic()
    while not (is_gone(tmp_path, 0) and is_gone(tmp_path, 1)):
        assert time.monotonic() - begin < 30
        time.sleep(0.01)


def test_torchrun_is_adopted(outside):
    assert not adopt_environment()
    for name in TORCH_VARIABLES:
        outside.setenv(name, "1")
    assert not adopt_environment()  # one process of torchrun is one process
    outside.setenv("WORLD_SIZE", "2")
    assert adopt_environment()


def test_a_slurm_step_is_adopted(outside, tmp_path):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\n[ \"$*\" = 'show hostnames node[3-4]' ] && printf 'node3\\nnode4\\n'\n")
    scontrol.chmod(0o755)
    outside.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    step = {"JOB_ID": 7, "STEP_ID": 2, "NTASKS": 4, "JOB_NUM_NODES": 2, "JOB_NODELIST": "node[3-4]"}
    for name, value in (step | {"PROCID": 3, "LOCALID": 1, "NODEID": 1}).items():
        outside.setenv(f"SLURM_{name}", str(value))
    for name in ("SUBMITIT_EXECUTOR", "LOCAL_RANK", "LOCAL_WORLD_SIZE", *TORCH_VARIABLES):
        outside.setenv(name, "")  # so that the fixture takes back what is exported
        outside.delenv(name)
    outside.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert not adopt_environment()
    outside.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert adopt_environment()
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    assert [os.environ[name] for name in names] == ["3", "1", "4", "2", "node3"]
    assert int(os.environ["MASTER_PORT"]) == step_port(os.environ)
    assert 20_000 <= step_port(os.environ) < 60_000


def test_how_many_are_wanted(monkeypatch):
    assert wanted_processes(2, "auto") == 2
    assert wanted_processes(3, "fsdp") == 3
    assert wanted_processes(None, "single") == 1
    monkeypatch.setattr(processes, "visible_gpus", lambda: 4)
    assert wanted_processes(None, "auto") == 4
    with pytest.raises(InputError, match=r"^--processes 2: the engine single is one process; accepted: ddp, fsdp"):
        wanted_processes(2, "single")
    with pytest.raises(InputError, match=r"^--processes 0: accepted: 1 or more"):
        wanted_processes(0, "ddp")
