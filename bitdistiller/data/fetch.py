"""The stage `fetch`: a model from the hub or a local directory, checked and hashed once."""

from __future__ import annotations

import shutil
from pathlib import Path

from bitdistiller.config import Model
from bitdistiller.data.rows import reason
from bitdistiller.errors import InputError
from bitdistiller.stages import Stage, open_stage

PATTERNS = ["*.json", "*.safetensors", "tokenizer.model", "*.txt", "*.jinja", "LICENSE*", "README.md"]


def run(recipe: Model, *, output: Path, work: Path | None, time_budget: float | None) -> None:
    """Make `output`/model: downloaded, or links to the files of a local directory."""
    if recipe.demo is not None:
        raise InputError("fetch takes --path or --hub; the demo teacher is made by pretrain-demo")
    identity = {"hub": recipe.hub, "revision": recipe.revision} if recipe.hub else {"path": str(recipe.path)}
    if recipe.path is not None:
        check_layout(recipe.path)
    with open_stage(
        "fetch", version=1, recipe=identity, inputs={}, output=output, work=work, time_budget=time_budget
    ) as stage:
        if recipe.path is not None:
            link(recipe.path, stage.output_directory("model"))
        else:
            download(recipe, stage)
        stage.finish(counts={"origin": recipe.hub or "local", "revision": recipe.revision})


def check_layout(path: Path) -> None:
    """Raises InputError unless `path` holds config.json, safetensors weights and a tokenizer."""
    wanted = {
        "config.json": ["config.json"],
        "weights (*.safetensors)": ["*.safetensors"],
        "a tokenizer (tokenizer.json or tokenizer.model)": ["tokenizer.json", "tokenizer.model"],
    }
    for name, patterns in wanted.items():
        if not any(found for pattern in patterns for found in path.glob(pattern)):
            raise InputError(f"{path}: no {name} there; a model directory in Hugging Face layout is needed")


def link(source: Path, target: Path) -> None:
    """Symbolic links in `target` to every model file of `source`."""
    for pattern in PATTERNS:
        for path in source.glob(pattern):
            (target / path.name).symlink_to(path.resolve())


def download(recipe: Model, stage: Stage) -> None:
    """Download the files of a hub model; finished files are kept when interrupted."""
    import huggingface_hub

    assert recipe.hub is not None
    snapshot = stage.work / "snapshot"
    try:
        huggingface_hub.snapshot_download(
            recipe.hub, revision=recipe.revision, local_dir=snapshot, allow_patterns=PATTERNS
        )
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise InputError(
            f"{recipe.hub} cannot be downloaded ({reason(error)}); check id, revision, login and network"
        ) from error
    check_layout(snapshot)
    stage.commit()
    shutil.rmtree(snapshot / ".cache", ignore_errors=True)
    shutil.move(snapshot, stage.output_file("model"))
