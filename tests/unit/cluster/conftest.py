"""Stand-ins for SLURM's clients that give the answers captured from a real cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

CAPTURED = Path(__file__).parent / "captured"


@pytest.fixture
def slurm_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """
    `slurm_clients(...)` puts scontrol and sacctmgr on PATH; `accounts=None` makes the latter fail.

    The cluster has the partitions cpu (default), gpu, low and high, and 2 GPUs `gpu:fake` on its node g1.
    """

    def make(min_job_age: int = 300, accounts: str | None = "lab,other", max_time: str = "UNLIMITED") -> Path:
        folder = tmp_path / "clients"
        folder.mkdir()
        config = (CAPTURED / "config-22.05.txt").read_text()
        (folder / "config").write_text(config.replace("= 300 sec", f"= {min_job_age} sec"))
        partitions = (CAPTURED / "partition-22.05.txt").read_text()
        (folder / "partition").write_text(partitions.replace("MaxTime=UNLIMITED", f"MaxTime={max_time}"))
        (folder / "node").write_text((CAPTURED / "node-22.05.txt").read_text())
        _script(folder / "scontrol", f'cat "{folder}/$2"')
        known = "exit 1" if accounts is None else f"echo {accounts} | tr , '\\n'"
        _script(folder / "sacctmgr", known)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    return make


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
