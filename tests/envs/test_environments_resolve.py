"""Every environment's packages exist and fit together, asked of a package index; needs uv (faster) or pip."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.envs
ROOT = Path(__file__).resolve().parents[2]
MINUTES = 15


def name_of(text: str) -> str:
    """A package's name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", text).lower()


def pins(lines: list[str]) -> dict[str, str]:
    """Versions by name in `name==version` lines, without local versions as `+cpu`."""
    found = (re.match(r"([\w.-]+)==([\w.]+)", line.strip()) for line in lines)
    return {name_of(match[1]): match[2] for match in found if match}


def resolve(directory: Path, *files: Path, constraints: str = "", extras: tuple[str, ...] = ()) -> dict[str, str] | str:
    """What would be installed for files of requirements or, without any, for the package; else the message."""
    uv = shutil.which("uv")
    constrained = ["-c", constraints] if constraints else []
    if uv:
        project = [part for extra in extras for part in ("--extra", extra)]
        sources = list(map(str, files)) or [*project, "pyproject.toml"]
        done = run([uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", *constrained, *sources])
        return pins(done.stdout.splitlines()) if done.returncode == 0 else done.stderr
    report = directory / "report.json"
    sources = [part for file in files for part in ("-r", str(file))] or [f".[{','.join(extras)}]"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    done = run([*command, "--report", str(report), *constrained, *sources])
    return reported(report) if done.returncode == 0 else done.stderr


def reported(report: Path) -> dict[str, str]:
    """Versions by name in a report of pip's, without the package itself."""
    found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    versions = {name_of(item["name"]): item["version"].partition("+")[0] for item in found}
    return {name: version for name, version in versions.items() if name != "bitdistiller"}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a resolver; uv looks where pip is told to look."""
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")
    environment = {**os.environ, "UV_FIND_LINKS": links}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60 * MINUTES, check=False
    )


@pytest.fixture(scope="session", autouse=True)
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip everything where no package index answers."""
    directory = tmp_path_factory.mktemp("index")
    (directory / "one.in").write_text("typer\n")
    answer = resolve(directory, directory / "one.in")
    if isinstance(answer, str):
        pytest.skip(f"no package index answers: {answer.strip()[-200:]}")


@pytest.mark.parametrize("kind", ["train", "serve", "baselines"])
def test_the_pip_part_of_a_conda_environment_resolves(kind: str, tmp_path: Path) -> None:
    lines = yaml.safe_load((ROOT / "envs" / f"{kind}.yaml").read_text())["dependencies"][-1]["pip"]
    (tmp_path / "pip.in").write_text("\n".join(lines))
    found = resolve(tmp_path, tmp_path / "pip.in")
    assert isinstance(found, dict), found
    assert {name: found[name] for name in pins(lines)} == pins(lines)


@pytest.mark.parametrize(
    ("constraints", "extras"),
    [
        ("constraints.txt", ("dev", "kernels", "engines")),
        ("constraints.txt", ("slurm",)),
        ("constraints-serve.txt", ("serve",)),
        ("constraints-baselines.txt", ("baselines",)),
    ],
)
def test_what_make_installs_resolves_to_the_pins(constraints: str, extras: tuple[str, ...], tmp_path: Path) -> None:
    found = resolve(tmp_path, constraints=constraints, extras=extras)
    assert isinstance(found, dict), found
    pinned = pins((ROOT / constraints).read_text().splitlines())
    assert {name: version for name, version in found.items() if pinned.get(name, version) != version} == {}
    unpinned = {name for name in found if name not in pinned and not is_for_gpus(name)}
    assert "serve" in extras or not unpinned  # what vLLM needs beyond the pins is for GPUs, and pinned by vLLM


def is_for_gpus(name: str) -> bool:
    """Whether a package comes with CUDA builds only; their versions are pinned by torch itself."""
    return name == "triton" or name.startswith(("nvidia-", "cuda-"))
