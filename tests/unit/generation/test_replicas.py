"""Copies of an engine in processes of their own: order, GPUs, failures, and that none outlives the stage."""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers.processes import finish, start, wait_for
from helpers.toy_engine import ToyEngine

from bitdistiller.errors import InputError
from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.engines import Wanted
from bitdistiller.generation.placement import Placement
from bitdistiller.generation.replicas import Replicas

SAMPLING = Sampling(4)
PARENT = """
import sys, time
sys.path[:0] = ["tests"]
from pathlib import Path
from helpers.toy_engine import ToyEngine
from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.engines import Wanted
from bitdistiller.generation.placement import Placement
from bitdistiller.generation.replicas import Replicas
if __name__ == "__main__":
    replicas = Replicas(ToyEngine, Wanted(Path(), "float32"), Placement(1, 2), None, 64)
    pids = [c.text.split()[0] for c in replicas.complete(["a", "b"], [1, 2], Sampling(4))]
    Path(sys.argv[1]).write_text(" ".join(pids))
    if sys.argv[2] == "wait":
        time.sleep(600)
    raise RuntimeError("the end, with everything still in use")
"""


WANTED = Wanted(Path("m"), "float32")


def test_prompts_are_dealt_and_answers_are_in_order(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    replicas = Replicas(ToyEngine, WANTED, Placement(2, 2), None, 64)
    for count in (5, 1, 2):
        prompts = [f"p{n}" for n in range(count)]
        answers = [c.text.split() for c in replicas.complete(prompts, range(count), SAMPLING)]
        assert [answer[2:] for answer in answers] == [[f"p{n}", str(n)] for n in range(count)]
        assert [answer[1] for answer in answers] == ["4,5", "6,7", "4,5", "6,7", "4,5"][:count]
    with pytest.raises(RuntimeError, match="ZeroDivisionError: no such number"):
        replicas.complete(["p0", "fail"], [0, 1], SAMPLING)
    with pytest.raises(RuntimeError, match="a copy of the model ended with exit code -9"):
        replicas.complete(["die", "p1"], [0, 1], SAMPLING)
    replicas.close()


def test_a_model_that_no_copy_can_load():
    with pytest.raises(InputError, match="engine: toy: cannot load it"):
        Replicas(ToyEngine, Wanted(Path("m"), "wrong"), Placement(1, 2), None, 64)


@pytest.mark.parametrize("end", ["wait", "raise"])
def test_no_copy_outlives_the_stage(tmp_path, end):
    script, pids = tmp_path / "parent.py", tmp_path / "pids"
    script.write_text(PARENT)
    process = start(script, pids, end)
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, process if end == "wait" else None)
    if end == "wait":
        os.kill(process.pid, signal.SIGTERM)
    code, log = finish(process)
    assert code == (-signal.SIGTERM if end == "wait" else 1), log
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in pids.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
