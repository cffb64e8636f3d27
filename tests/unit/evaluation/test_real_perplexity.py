"""WikiText-2 and C4 of a real model beside direct scripts that know nothing of this package."""

import gzip
import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitdistiller.config import EvaluateRecipe
from bitdistiller.evaluation import stage as evaluate_stage

pytestmark = pytest.mark.slow


@pytest.fixture
def real(test_data):
    """Model directory, model and tokenizer of TinyStories-656K, float32."""
    path = test_data / "models" / "TinyStories-656K"
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return path, model, AutoTokenizer.from_pretrained(path)


def ours(model, output, **evaluation):
    recipe = EvaluateRecipe(name="p", evaluation={"kind": "perplexity"} | evaluation, dtype="float32")
    evaluate_stage.run(recipe, model=model, output=output)
    return json.loads((output / "metrics.json").read_text())["metrics"]["perplexity"]


@torch.no_grad()
def test_wikitext_in_chunks(real, test_data, tmp_path):
    """The usual script: lines joined by two newlines, whole chunks, the model's own loss."""
    path, model, tokenizer = real
    file = test_data / "datasets" / "wikitext2" / "wiki.test.raw.gz"
    with gzip.open(file, "rt", encoding="utf-8") as handle:
        text = "\n\n".join(line if line.strip() else "" for line in handle)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0]
    chunks = ids[: len(ids) // 512 * 512].view(-1, 512)
    losses = [model(chunk[None], labels=chunk[None]).loss.item() for chunk in chunks]
    found = ours(path, tmp_path / "out", dataset="wikitext2", path=file)
    assert found["n"] == len(chunks)
    assert found["value"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)


@torch.no_grad()
def test_c4_in_sliding_windows(real, test_data, tmp_path):
    """As the transformers documentation does it: labels of tokens seen before are left out."""
    path, model, tokenizer = real
    file = test_data / "datasets" / "c4_sample" / "c4_exllamav2.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as handle:
        text = "\n\n".join(json.loads(line)["text"] for line in list(handle)[:40])
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    total, count, before = 0.0, 0, 0
    for begin in range(0, ids.shape[1], 256):
        end = min(begin + 512, ids.shape[1])
        labels = ids[:, begin:end].clone()
        labels[:, : max(0, before - begin)] = -100
        valid = int((labels[:, 1:] != -100).sum())
        total += model(ids[:, begin:end], labels=labels).loss.item() * valid
        count, before = count + valid, end
        if end == ids.shape[1]:
            break
    options = {"dataset": "c4", "path": file, "chunk_length": 512, "stride": 256, "max_documents": 40}
    assert ours(path, tmp_path / "out", **options)["value"] == pytest.approx(math.exp(total / count), rel=1e-5)
