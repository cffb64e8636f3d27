"""A cluster for the tests of this folder; they are skipped where SLURM is not installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from slurm.project.inputs import write_inputs
from slurm.project.project import Project
from slurm.project.scenario import Row, write_rows
from slurm.rig.cluster import Cluster, missing
from slurm.rig.settings import Settings

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / ".venv-slurm"
SMALL_DISK = "64m"


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


@pytest.fixture(scope="session")
def shared_directory() -> Iterator[Path]:
    """
    What stands for the file system that all nodes share.

    BITDISTILLER_SLURM_PROJECTS names a directory that outlives the session, so that the next one finds the undisturbed
    project finished.
    """
    kept = os.environ.get("BITDISTILLER_SLURM_PROJECTS")
    if kept:
        yield Path(kept)
        return
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="projects-", dir=base))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def inputs(shared_directory: Path) -> Path:
    """Model and data of all projects."""
    directory = shared_directory / "inputs"
    return directory if directory.exists() else write_inputs(directory)


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, slurm_python: Path, shared_directory: Path, inputs: Path) -> Project:
    """A project that was finished without a scheduler and without a fault: the measure of others, and their start."""
    directory = shared_directory / "undisturbed"
    if (directory / "results" / "tables").exists():
        return Project(directory, cluster, slurm_python)
    project = Project.create(directory, cluster, slurm_python, inputs)
    project.snakemake("--executor", "local", "--cores", "2")
    return project


@pytest.fixture
def project_directory(shared_directory: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A place for the project of one test."""
    directory = shared_directory / request.node.name.replace("/", "-")
    directory.mkdir()
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def small_disk(project_directory: Path) -> Iterator[str | None]:
    """Make `project_directory` a file system of its own; the reason where that is not permitted, else None."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "none", str(project_directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    yield done.stderr.strip() or f"mount: exit code {done.returncode}" if done.returncode else None
    if done.returncode == 0:
        subprocess.run(["umount", "--lazy", str(project_directory)], check=True)


@pytest.fixture(scope="session")
def rows() -> Iterator[list[Row]]:
    """What faults cost; appended to the CSV that BITDISTILLER_FAULTS names."""
    found: list[Row] = []
    yield found
    path = os.environ.get("BITDISTILLER_FAULTS")
    if path:
        write_rows(Path(path), found)
