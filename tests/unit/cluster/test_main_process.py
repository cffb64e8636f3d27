"""One main process on a results directory: who is refused, who takes over, and what missing rights look like."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import start, wait_for

from bitdistiller.cluster.guard import check_profile, named_profile
from bitdistiller.cluster.main_process import MainProcess
from bitdistiller.errors import InputError
from bitdistiller.plan import main_process_directory

HOLD = """
import sys, time
from pathlib import Path
from bitdistiller.cluster.main_process import MainProcess
MainProcess(Path(sys.argv[1])).acquire()
time.sleep(60)
"""
TRY = """
import sys
from pathlib import Path
from bitdistiller.cluster.main_process import MainProcess
from bitdistiller.errors import InputError, end_process
try:
    MainProcess(Path(sys.argv[1])).acquire()
except InputError as error:
    end_process(error)
"""
ELSEWHERE = {"token": "t", "user": "ada", "host": "login2", "machine": "m", "pid": 7, "start_time": "1", "beats": 3}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An empty results directory."""
    path = tmp_path / "results"
    path.mkdir()
    return path


def lock_file(results: Path) -> Path:
    return main_process_directory(results) / "lock.json"


def write_owner(results: Path, seconds_ago: float) -> None:
    """The lock of a main process on another host, renewed some time ago."""
    path = lock_file(results)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(ELSEWHERE))
    then = path.stat().st_mtime - seconds_ago
    os.utime(path, (then, then))


def test_the_second_is_refused_at_once_and_takes_over_from_a_killed_one(results: Path) -> None:
    first = start("-c", HOLD, results)
    wait_for(lock_file(results).exists, first)
    second = MainProcess(results)
    with pytest.raises(InputError, match=rf"^{results}: process {first.pid} of .* only one at a time") as refused:
        second.acquire()
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="only one at a time"):
        second.forget_the_dead()
    first.kill()
    first.wait()
    second.acquire()
    assert second.owner()["pid"] == os.getpid()
    second.release()
    assert second.owner() is None


def test_another_host_counts_as_dead_after_its_silence_only(results: Path) -> None:
    lock = MainProcess(results, stale=90)
    write_owner(results, seconds_ago=60)
    with pytest.raises(InputError, match=r"process 7 of ada on login2 .* 60 s old; after 90 s it counts as dead"):
        lock.acquire()
    write_owner(results, seconds_ago=91)
    lock.acquire()
    lock.release()


def test_nothing_is_taken_when_the_check_fails(results: Path) -> None:
    write_owner(results, seconds_ago=1000)
    lock = MainProcess(results)

    def check() -> None:
        raise InputError("not now")

    with pytest.raises(InputError, match="not now"):
        lock.acquire(check)
    assert lock.owner() == ELSEWHERE
    assert lock.forget_the_dead() == ELSEWHERE
    assert lock.owner() is None


def test_its_files_have_the_rights_of_the_results_directory_whatever_the_umask(results: Path) -> None:
    results.chmod(0o2775)
    before = os.umask(0o077)
    try:
        lock = MainProcess(results)
        lock.acquire()
    finally:
        os.umask(before)
    directory = main_process_directory(results)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o2775
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o664}
    lock.release()


def test_missing_rights_are_one_line_that_names_the_owner(results: Path) -> None:
    write_owner(results, seconds_ago=1)
    directory = main_process_directory(results)
    for path in (directory, results):
        path.chmod(0o555)
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    if powerless and shutil.which(powerless[0]) is None:
        pytest.skip("root may write everywhere, and there is no setpriv")
    done = subprocess.run([*powerless, sys.executable, "-c", TRY, results], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Permission denied for user" in done.stderr
    assert "process 7 of ada on login2 holds it" in done.stderr
    assert f"must be writable for their group ({results} is " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_error_of_the_file_system_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(InputError, match="Not a directory for user"):
        MainProcess(tmp_path / "results").acquire()


def test_a_lock_that_cannot_be_read_is_somebody_elses(results: Path) -> None:
    path = lock_file(results)
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(InputError, match="the main process of another user"):
        MainProcess(results).acquire()


def test_a_workflow_profile_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "profiles" / "slurm").mkdir(parents=True)
    places = [tmp_path, tmp_path / "profiles"]
    for good in (["snakemake"], ["snakemake", "--workflow-profile", "slurm"], ["x", "--workflow-profile=none"]):
        check_profile(good, places)
    with pytest.raises(InputError, match="--workflow-profile slrum: no such profile; accepted: slurm"):
        check_profile(["snakemake", "--workflow-profile", "slrum"], places)
    assert named_profile(["snakemake", "--workflow-profile=a/b"]) == "a/b"
