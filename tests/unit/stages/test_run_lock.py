"""Two processes never write to one work directory, and nobody waits for the dead."""

import json
import os
import threading
import time

import pytest
from helpers.processes import TOY_STAGE, finish, run, start, wait_for

from bitdistiller.errors import LockHeld
from bitdistiller.stages.lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from bitdistiller.stages import lock
lock.HEARTBEAT_SECONDS = 0.05
lock.RunLock(Path(sys.argv[1])).acquire()
{then}
"""


def hold(directory, then="time.sleep(60)"):
    process = start("-c", HOLD.format(then=then), directory)
    wait_for((directory / "lock.json").exists, process)
    return process


def owner(directory):
    return json.loads((directory / "lock.json").read_text())


def acquire(directory, **settings):
    """Take and release the lock; returns the seconds it took."""
    lock, begin = RunLock(directory, **settings), time.monotonic()
    lock.acquire()
    lock.release()
    return time.monotonic() - begin


@pytest.fixture
def foreign(tmp_path):
    """`foreign(**changes)` writes the lock of an owner on another machine."""

    def write(**changes):
        record = {
            "token": "theirs",
            "host": "elsewhere",
            "machine": "elsewhere",
            "pid": 1,
            "start_time": "1",
            "beats": 1,
        }
        whole = tmp_path / "whole"
        whole.write_text(json.dumps({**record, "job": "4711", **changes}))
        whole.replace(tmp_path / "lock.json")

    return write


def test_a_live_owner_is_not_disturbed(tmp_path):
    process = hold(tmp_path)
    try:
        with pytest.raises(LockHeld, match=f"process {process.pid} on .* works here") as error:
            acquire(tmp_path, wait=0.3, stale=0.1)
        assert error.value.exit_code == 75
        assert owner(tmp_path)["pid"] == process.pid
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_waits_for_the_first_and_then_works(tmp_path):
    gate = tmp_path / "gate"
    first = start(TOY_STAGE, tmp_path / "out", "--steps", "3", "--until", gate)
    wait_for((tmp_path / "out.work" / "lock.json").exists, first)
    second = start(TOY_STAGE, tmp_path / "out", "--steps", "3")
    assert f"waiting for process {first.pid}" in second.stdout.readline()
    gate.touch()
    assert finish(first)[0] == 0
    code, output = finish(second)
    assert code == 0
    assert "attempt 2" in output
    assert not (tmp_path / "out.work" / "lock.json").exists()


def test_a_lock_wait_is_no_attempt(toy, work):
    with toy() as stage:
        with pytest.raises(LockHeld), toy():
            pass
        assert len(stage.attempts.history()) == 1
        stage.output_file("result").write_text("1")
        stage.finish()


def test_the_lock_of_a_killed_process_is_taken_at_once(tmp_path):
    process = hold(tmp_path)
    process.kill()
    process.communicate()
    assert acquire(tmp_path, wait=5.0, stale=60.0) < 2.0


def test_a_reused_process_number_is_no_owner(tmp_path):
    process = hold(tmp_path)
    process.kill()
    process.communicate()
    (tmp_path / "lock.json").write_text(json.dumps({**owner(tmp_path), "pid": os.getpid()}))
    assert acquire(tmp_path, wait=5.0, stale=60.0) < 2.0


def test_a_foreign_heartbeat_that_stands_still_is_taken_over(tmp_path, foreign):
    foreign()
    assert 0.3 < acquire(tmp_path, wait=10.0, stale=0.3) < 5.0


def test_a_foreign_heartbeat_that_moves_is_waited_for(tmp_path, foreign):
    stop = threading.Event()

    def beat():
        beats = 0
        while not stop.wait(0.05):
            beats += 1
            foreign(beats=beats)

    foreign()
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(LockHeld, match="process 1 on elsewhere, job 4711"):
            acquire(tmp_path, wait=2.5, stale=1.2)
    finally:
        stop.set()
        thread.join()


def test_an_unreadable_lock_is_taken_over_like_a_foreign_one(tmp_path):
    (tmp_path / "lock.json").write_text("{half a li")
    assert 0.2 < acquire(tmp_path, wait=10.0, stale=0.2) < 5.0


def test_the_heartbeat_moves(tmp_path):
    process = hold(tmp_path)
    try:
        wait_for(lambda: owner(tmp_path)["beats"] >= 3, process, 10.0)
    finally:
        process.kill()
        process.communicate()


def test_who_lost_the_lock_stops(tmp_path, foreign):
    process = hold(tmp_path)
    foreign()
    code, _ = finish(process, 20.0)
    assert code == 75
    assert owner(tmp_path)["token"] == "theirs"


def test_an_unreadable_moment_does_not_lose_the_lock(tmp_path):
    process = hold(tmp_path)
    try:
        mine = (tmp_path / "lock.json").read_text()
        for _ in range(3):
            (tmp_path / "lock.json").write_text("{half a li")
            time.sleep(0.15)
        assert process.poll() is None
        (tmp_path / "lock.json").write_text(mine)
        wait_for(lambda: owner(tmp_path)["beats"] > json.loads(mine)["beats"], process, 10.0)
    finally:
        process.kill()
        process.communicate()


def test_release_leaves_the_lock_of_others(tmp_path, foreign):
    lock = RunLock(tmp_path)
    lock.acquire()
    foreign()
    lock.release()
    assert owner(tmp_path)["token"] == "theirs"


def test_the_lock_is_given_back_after_an_error(tmp_path):
    code, _ = run("-c", HOLD.format(then="lock.RunLock"), tmp_path / "a")
    assert code == 0
    assert acquire(tmp_path / "a", wait=5.0) < 2.0


def test_a_stage_asked_to_stop_while_it_waits_for_the_lock_stops(tmp_path):
    owner_process = hold(tmp_path / "out.work")
    waiting = start(TOY_STAGE, tmp_path / "out")
    try:
        lines = iter(waiting.stdout.readline, "")
        assert any("waiting for process" in line for line in lines)
        waiting.terminate()
        assert finish(waiting, 10.0)[0] == 75
    finally:
        owner_process.kill()
        owner_process.communicate()
