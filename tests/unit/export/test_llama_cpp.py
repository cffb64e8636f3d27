"""GGUF files in llama.cpp itself, where its wheel is installed: the same tokens, nearly the same probabilities."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers.tiny import make_tokenizer
from test_converted_values import convert
from tiny_models import CONFIGS, pack, recipe
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import bitdistiller

pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp has no wheel for this machine")

SCRIPT = Path(__file__).resolve().parents[2] / "helpers" / "ask_llama_cpp.py"
TEXTS = ["Once upon a time", "The cat sat on the mat", "A dog, 12 of them!\nAnd a bird."]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS = CONFIGS | {"llama3": LlamaConfig(**CONFIGS["llama"].to_dict() | {"rope_parameters": LLAMA3})}


def ask(path, texts):
    """The engine's tokens of every text, and log-probabilities of the likeliest next tokens by id."""
    command = [sys.executable, str(SCRIPT), str(path), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.rpartition("ANSWER")[2].splitlines()[0])


def compare(checkpoint, path, texts, tolerance):
    model = bitdistiller.load_model(checkpoint, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for text, answer in zip(texts, ask(path, texts), strict=True):
        assert answer["tokens"] == tokenizer(text).input_ids, text
        with torch.inference_mode():
            expected = model(torch.tensor([answer["tokens"]])).logits[0, -1].log_softmax(-1)
        found = answer["log_probabilities"]
        assert len(found) == 20
        worst = max(abs(value - float(expected[int(token)])) for token, value in found.items())
        assert worst < tolerance, text


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_computes_the_same(name, tmp_path):
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(MODELS[name]).float()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(std=0.5)
            elif parameter.ndim == 2:
                parameter.mul_(5)
    model.save_pretrained(tmp_path / "base")
    make_tokenizer(200).save_pretrained(tmp_path / "base")
    packed = pack(tmp_path / "base", recipe("int3", dtype="float32"), tmp_path / "packed")
    compare(packed, convert(packed, "gguf-q4_1", tmp_path / "out") / "model.gguf", TEXTS, 0.2)


@pytest.mark.parametrize(
    ("layout", "number_format"), [("gguf-q2_0", "int2"), ("gguf-q4_1", "int2"), ("gguf-q4_1", "int3")]
)
def test_a_real_model_with_a_sentencepiece_tokenizer(layout, number_format, test_data, tmp_path):
    model = test_data / "models" / "TinyStories-656K"
    packed = pack(model, recipe(number_format, dtype="float32"), tmp_path / "packed")
    compare(packed, convert(packed, layout, tmp_path / "out") / "model.gguf", TEXTS, 0.2)
