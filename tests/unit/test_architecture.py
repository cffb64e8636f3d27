"""The house: rooms import only rooms above them, methods live in the registry, files stay small."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bitdistiller"
TOP = ("errors", "plugins", "environments", "config", "recipes", "plan", "resources", "options")
ROOMS = (
    *TOP,
    "stages",
    "arguments",
    "kernels",
    "formats",
    "layers",
    "calibration",
    "data",
    "baselines",
    "generation",
    "distillation",
    "export",
    "evaluation",
    "reporting",
    "inspection",
    "cluster",
    "demo",
    "cli",
    "__main__",
)
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The room a source file is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms whose modules a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} if node.module != "bitdistiller" else {f"bitdistiller.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    rooms = {name.split(".")[1] for name in names if name.startswith("bitdistiller.")}
    return rooms - {"load_model"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    wrong = {name for name in imported_rooms(path) if ROOMS.index(name) > ROOMS.index(room)}
    assert not wrong, f"{path} imports {wrong}, which come after {room}"


def test_every_room_is_in_the_list() -> None:
    assert {room_of(path) for path in SOURCES} <= {*ROOMS, "__init__"}


def test_stages_know_no_method_and_reporting_no_model() -> None:
    for path in (PACKAGE / "reporting").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import torch" not in text
        assert "import transformers" not in text
    for path in SOURCES:
        assert ".method ==" not in path.read_text(encoding="utf-8")


def test_rule_files_are_short_and_the_snakefile_too() -> None:
    assert len((ROOT / "workflow" / "Snakefile").read_text().splitlines()) <= 60
    for path in (ROOT / "rules").glob("*.smk"):
        limit = 200 if path.name == "common.smk" else 120
        assert len(path.read_text().splitlines()) <= limit, path


def test_no_rule_retries_and_no_array_jobs() -> None:
    for path in (ROOT / "rules").glob("*.smk"):
        assert "retries:" not in path.read_text()
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "profile.v9+.yaml").read_text())
    assert profile["slurm-status-command"] == "squeue"
    assert profile["slurm-requeue"] is True
    assert profile["retries"] >= 20
    assert not any("array" in key for key in profile)
    assert "default-resources" not in yaml.safe_load((ROOT / "profiles" / "default" / "profile.v9+.yaml").read_text())


def pip_part(environment: str) -> dict[str, str]:
    """Versions by name in the pip part of an environment file."""
    pip = yaml.safe_load((ROOT / "envs" / environment).read_text())["dependencies"][-1]["pip"]
    return dict(pin.split("==") for pin in pip)


def required(*extras: str) -> set[str]:
    """Names that the package and some of its extras require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return {re.match(r"[\w-]+", requirement)[0] for requirements in lists for requirement in requirements}


@pytest.mark.parametrize(
    ("constraints", "environment"),
    [
        ("constraints.txt", "train.yaml"),
        ("constraints-serve.txt", "serve.yaml"),
        ("constraints-baselines.txt", "baselines.yaml"),
    ],
)
def test_environments_repeat_the_pins(constraints: str, environment: str) -> None:
    lines = (ROOT / constraints).read_text().splitlines()
    pins = {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}
    pip = pip_part(environment)
    pip.pop("vllm", None)  # of its two builds the package's extra pins this one
    assert {name: pins[name] for name in pip} == pip


def test_environments_have_what_their_work_requires() -> None:
    assert set(pip_part("train.yaml")) == required("kernels", "engines")
    assert set(pip_part("serve.yaml")) == required("serve")
    assert set(pip_part("baselines.yaml")) >= {"auto-round", "llmcompressor"}  # of the stages it runs only one
    assert f"vllm=={pip_part('serve.yaml')['vllm']}" in (ROOT / "pyproject.toml").read_text()
