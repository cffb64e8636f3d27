"""Clipping a real model: most of the damage of INT2 is undone before any training."""

import gzip
import json
import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitdistiller.calibration import apply_clip, load_clip, stage
from bitdistiller.config import Calibration, ClipRecipe, Quantization
from bitdistiller.formats import get_format
from bitdistiller.layers import bake_linears, quantize_linears

CHUNKS, LENGTH = 200, 256


@pytest.fixture(scope="module")
def model_path(test_data):
    return test_data / "models" / "TinyStories-656K"


@pytest.fixture(scope="module")
def stories(test_data):
    def read(name):
        with gzip.open(test_data / "datasets" / "tinystories" / name, "rt", encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line in lines]

    return {"train": read("train_sample.jsonl.gz"), "validation": read("valid_sample.jsonl.gz")[:500]}


@pytest.fixture(scope="module")
def chunks(model_path, stories):
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    ids = tokenizer("\n\n".join(stories["validation"]), add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor(ids[: CHUNKS * LENGTH]).view(CHUNKS, LENGTH)


@torch.no_grad()
def perplexity(model, chunks):
    bake_linears(model)
    losses = []
    for batch in chunks.split(20):
        logits = model(batch).logits[:, :-1].flatten(0, 1)
        losses.append(F.cross_entropy(logits, batch[:, 1:].flatten()))
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize(
    ("name", "unclipped", "clipped"), [("int2", (800, 900), 155), ("int3", (45, 49), 41), ("nf3", (39, 42), 39)]
)
def test_clipping_alone(model_path, stories, chunks, tmp_path, name, unclipped, clipped):
    recipe = ClipRecipe(
        quantization=Quantization(format=name, group_size=128),
        calibration=Calibration(texts="demo", block_length=LENGTH),
    )
    texts = lambda: stories["train"]  # noqa: E731
    stage.run(recipe, model=model_path, texts=texts, output=tmp_path / "clip", work=None, time_budget=None)
    number_format, measured = get_format(name, "bfloat16"), []
    for tensors in ({}, load_clip(tmp_path / "clip")):
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
        apply_clip(model, tensors)
        quantize_linears(model, number_format, 128)
        measured.append(perplexity(model, chunks))
    assert unclipped[0] < measured[0] < unclipped[1]
    assert measured[1] < clipped
