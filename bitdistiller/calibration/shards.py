"""One shard of the calibration: the Gram matrices of its sequences, and what the merge must know about them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bitdistiller.calibration.collect import GramJob, collect_grams
from bitdistiller.calibration.gram import GramOptions
from bitdistiller.calibration.prepare import all_tokens, layers_to_clip, local_texts
from bitdistiller.calibration.stored import grams_file
from bitdistiller.calibration.tokens import shard_of, token_stride
from bitdistiller.calibration.weights import open_weights
from bitdistiller.config import SEARCH_ONLY, GramRecipe
from bitdistiller.errors import InputError
from bitdistiller.stages import DIGEST, Stage, open_stage, verify
from bitdistiller.stages.digest import hash_file
from bitdistiller.stages.files import read_json, write_json

GRAMS = "grams"
DESCRIPTION = "grams.json"


def run_shard(
    recipe: GramRecipe,
    *,
    model: Path,
    texts: Callable[[], Sequence[str]],
    shard: int,
    shards: int,
    output: Path,
    work: Path | None,
    time_budget: float | None,
) -> None:
    """Write the Gram matrices of shard `shard` of `shards` of the calibration sequences, block by block.

    Finished blocks are kept in the work directory. Raises InputError as `stage.run` does, and for a shard that does
    not exist.
    """
    if not 0 <= shard < shards:
        raise InputError(f"--shard {shard}: must be from 0 to {shards - 1}")
    with open_stage(
        "gram",
        version=1,
        recipe=gram_identity(recipe) | {"shard": shard, "shards": shards},
        inputs={"model": model, **local_texts(recipe.calibration)},
        output=output,
        work=work,
        time_budget=time_budget,
    ) as stage:
        weights = open_weights(model)
        layers = layers_to_clip(weights, recipe.calibration.skip, recipe.group_size, recipe.pad)
        tokens = all_tokens(recipe.calibration, model, texts, stage.work)
        share, before = shard_of(tokens, shard, shards)
        options = GramOptions(recipe.group_size, token_stride(tokens, recipe.calibration.tokens), before, recipe.pad)
        job = GramJob(stage, weights, layers, share, options, recipe.calibration.importance)
        rate = collect_grams(job, stage.work / GRAMS)
        _publish(stage, len(layers))
        origin = identity_of_inputs(stage, recipe)
        origin |= {"shard": shard, "shards": shards, "tokens": _hash(tokens)}
        write_json(stage.output_file(DESCRIPTION), origin)
        counts = {"blocks": len(layers), "sequences": len(share), "tokens": share.numel()}
        stage.finish(counts=counts, details={"blocks_per_second": rate})


def gram_identity(recipe: GramRecipe) -> dict[str, Any]:
    """The options on which Grams depend; local texts count by content, not by path."""
    calibration = recipe.calibration.model_dump(mode="json", exclude_defaults=True, exclude={*SEARCH_ONLY, "path"})
    padded = {"pad": True} if recipe.pad else {}
    return {"calibration": calibration, "group_size": recipe.group_size} | padded


def identity_of_inputs(stage: Stage, recipe: GramRecipe) -> dict[str, Any]:
    """What shards and their merge must agree on."""
    inputs = {name: stage.fingerprint["inputs"].get(name) for name in ("model", "texts")}
    return {"pad": False} | inputs | gram_identity(recipe)


def check_finished(directories: Sequence[Path]) -> None:
    """Raises InputError unless every directory is the finished output of a shard."""
    for directory in directories:
        verify(directory, deep=False)
        if not (directory / DESCRIPTION).exists():
            raise InputError(f"{directory}: no {DESCRIPTION} in it; accepted: the output directory of clip --shard")


def ordered_shards(directories: Sequence[Path], expected: dict[str, Any]) -> list[Path]:
    """The directories in the order of their shards.

    Raises InputError for shards that are missing, doubled, or do not agree with `expected` or with each other.
    """
    described = {directory: read_json(directory / DESCRIPTION) for directory in directories}
    first = described[directories[0]]
    expected = expected | {key: first[key] for key in ("shards", "tokens")}
    found: dict[int, Path] = {}
    for directory, origin in described.items():
        for key, value in expected.items():
            if origin[key] != value:
                raise InputError(f"--grams {directory}: {_disagreement(key, origin[key], value)}")
        other = found.setdefault(origin["shard"], directory)
        if other != directory:
            raise InputError(f"--grams: {other} and {directory} are both shard {origin['shard']}; give each shard once")
    missing = [str(shard) for shard in range(first["shards"]) if shard not in found]
    if missing or len(described) != len(directories):
        what = f"shards {', '.join(missing)} of {first['shards']} are missing" if missing else "a shard is given twice"
        raise InputError(f"--grams: {what}; give each shard once")
    return [found[shard] for shard in sorted(found)]


def checked_file(directory: Path, block: int) -> Path:
    """The Grams of one block of a finished shard; raises InputError when the file has changed since."""
    path = grams_file(directory / GRAMS, block)
    name = path.relative_to(directory).as_posix()
    if hash_file(path) != read_json(directory / DIGEST)["files"][name]["sha256"]:
        raise InputError(f"{path}: damaged or missing (differs from {DIGEST}); delete {directory} and run again")
    return path


def _disagreement(key: str, found: Any, wanted: Any) -> str:
    if key in ("model", "texts", "tokens"):
        what = {"model": "another model", "texts": "other calibration texts", "tokens": "other calibration tokens"}
        return f"its Grams are of {what[key]}; give the shards of one calibration"
    texts = (json.dumps(value, sort_keys=True) for value in (found, wanted))
    return f"its {key} is {' and not '.join(texts)}; give the shards of one calibration"


def _hash(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.numpy().tobytes()).hexdigest()


def _publish(stage: Stage, blocks: int) -> None:
    """Give the finished Grams a second name among the outputs, or copy them where the disk is another."""
    target = stage.output_directory(GRAMS)
    for source in (grams_file(stage.work / GRAMS, block) for block in range(blocks)):
        try:
            os.link(source, target / source.name)
        except OSError:
            shutil.copyfile(source, target / source.name)
