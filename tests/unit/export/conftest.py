"""Tiny random models on the disk, as users have them."""

import json

import pytest
import torch
from tiny_models import make_model, recipe
from transformers import AutoModelForCausalLM


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory):
    """`model_directory(name)`: the directory of a random model, made once."""
    made = {}

    def directory(name="llama"):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            make_model(name).save_pretrained(made[name])
            (made[name] / "tokenizer_config.json").write_text("{}")
        return made[name]

    return directory


@pytest.fixture(scope="session")
def student_directory(model_directory, tmp_path_factory):
    """A student for int2 in groups of 64: float32 masters and the record of what they were trained for."""
    path = tmp_path_factory.mktemp("trained") / "student"
    model = AutoModelForCausalLM.from_pretrained(model_directory(), dtype=torch.float32)
    model.save_pretrained(path)
    (path / "bitdistiller.json").write_text(json.dumps(recipe().quantization.model_dump(mode="json")))
    return path
