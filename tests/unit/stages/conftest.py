"""A stage with next to no work, inside the test's own process."""

from pathlib import Path

import pytest

from bitdistiller.stages import open_stage


@pytest.fixture
def toy(tmp_path: Path):
    """`toy(**changes)` opens the stage `toy` with output and state below the test's folder."""

    def open_toy(**changes):
        settings = {"version": 1, "recipe": {"size": 1}, "inputs": {}, "output": tmp_path / "out", "lock_wait": 0.2}
        return open_stage("toy", **{**settings, **changes})

    return open_toy


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where the stage `toy` keeps its state."""
    return tmp_path / "out.work"
