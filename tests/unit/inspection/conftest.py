"""Directories of every kind that can be inspected, made once of one tiny model."""

import json
import shutil

import pytest
from helpers.tiny import SENTENCES

from bitdistiller.calibration import stage as clip_stage
from bitdistiller.config import Calibration, ClipRecipe, ExportRecipe, Quantization
from bitdistiller.export import stage as export_stage

INT2 = Quantization(format="int2", group_size=32)


@pytest.fixture(scope="session")
def clipped(tiny_model, tmp_path_factory):
    """The output directory of `clip` for INT2 in groups of 32."""
    output = tmp_path_factory.mktemp("clipped") / "clip"
    recipe = ClipRecipe(quantization=INT2, calibration=Calibration(texts="demo", block_length=48))
    texts = lambda: SENTENCES * 8  # noqa: E731
    clip_stage.run(recipe, model=tiny_model, texts=texts, output=output, work=None, time_budget=None)
    return output


@pytest.fixture(scope="session")
def packed(tiny_model, clipped, tmp_path_factory):
    """`packed(format)`: the output directory of `export`; INT2 with the clip ranges."""
    root, made = tmp_path_factory.mktemp("packed"), {}

    def pack(name):
        if name not in made:
            made[name] = root / name
            recipe = ExportRecipe(quantization=INT2.model_copy(update={"format": name}), dtype="bfloat16")
            clip = clipped if name == "int2" else None
            work = root / f"{name}.work"
            options = {"clip": clip, "output": made[name], "work": work, "time_budget": None, "verify": False}
            export_stage.run(recipe, weights=tiny_model, **options)
        return made[name]

    return pack


@pytest.fixture(scope="session")
def student(tiny_model, tmp_path_factory):
    """A trained student, to be quantised to INT3 in groups of 32."""
    path = tmp_path_factory.mktemp("trained") / "student"
    shutil.copytree(tiny_model, path)
    record = INT2.model_copy(update={"format": "int3"}).model_dump(mode="json")
    (path / "bitdistiller.json").write_text(json.dumps(record))
    return path
