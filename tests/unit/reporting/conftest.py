"""Fixtures of the reporting tests."""

from pathlib import Path

import pytest
from result_trees import RUNS, make_experiment, write_run

from bitdistiller.config import Experiment


@pytest.fixture
def experiment() -> Experiment:
    return make_experiment()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """All six runs finished."""
    for run in RUNS:
        write_run(tmp_path / "results", run)
    return tmp_path / "results"
