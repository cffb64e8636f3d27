"""A cluster for the tests of this folder; they are skipped where SLURM is not installed."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from slurm.rig.cluster import Cluster, missing
from slurm.rig.settings import Settings

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / ".venv-slurm"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def slurm_python() -> Path:
    """The Python that has Snakemake with its plugin for SLURM."""
    python = Path(os.environ.get("BITDISTILLER_SLURM_PYTHON", ENVIRONMENT / "bin" / "python"))
    if not python.exists():
        pytest.skip(f"no {python}; make .venv-slurm/.ready")
    return python


@pytest.fixture(scope="session")
def make_cluster() -> Iterator[Callable[..., Cluster]]:
    """`make_cluster(settings)` starts a cluster that ends with the session, or earlier by its own stop()."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with ExitStack() as stack:

        def make(settings: Settings | None = None) -> Cluster:
            directory = Path(tempfile.mkdtemp(prefix="rig-", dir=base))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            return stack.enter_context(Cluster(directory, settings))

        yield make


@pytest.fixture(scope="session")
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """The cluster that tests share: two CPU nodes, a GPU node, accounting."""
    return make_cluster()
