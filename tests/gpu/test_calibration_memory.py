"""The walk, the backward pass and the search of a block of LLaMA-2-7B's shapes fit 5 GB of GPU memory."""

import pytest
import torch
from helpers.architectures import build
from transformers import LlamaConfig, LlamaForCausalLM

from bitdistiller.calibration import ActivationWalk, GramOptions, search
from bitdistiller.calibration.importance import loss_gradient, step_back
from bitdistiller.formats import get_format

LAYERS = ["self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
SHAPE = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32000}

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def forward_and_back(model, tokens, device, group_size):
    """Grams and weighted Grams of the last block."""
    walk, options = ActivationWalk(model, tokens, device), GramOptions(group_size)
    for _ in walk.blocks:
        inputs = list(walk.hidden)
        grams = walk.step(LAYERS, options)
    weighted = step_back(walk, len(walk.blocks) - 1, inputs, loss_gradient(walk, tokens), LAYERS, options)
    return {name: gram.gram() for name, gram in grams.items()}, {name: gram.gram() for name, gram in weighted.items()}


def test_peak_memory():
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, num_hidden_layers=2, dtype=torch.bfloat16))
    model = model.bfloat16().to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.normal_(std=0.02)
    torch.cuda.reset_peak_memory_stats()
    grams, _ = forward_and_back(model, torch.randint(0, 32000, (8, 1024)), "cuda", 128)
    weight = model.model.layers[1].mlp.down_proj.weight.detach().to("cuda")
    search(weight, grams["mlp.down_proj"], get_format("int2", "bfloat16"), 128)
    assert torch.cuda.max_memory_allocated() < 5e9


def test_equals_the_cpu():
    tokens = torch.randint(0, 80, (5, 24), generator=torch.Generator().manual_seed(3))
    for found, expected in zip(
        forward_and_back(build("llama"), tokens, "cuda", 32),
        forward_and_back(build("llama"), tokens, "cpu", 32),
        strict=True,
    ):
        for name, gram in expected.items():
            scale = gram.abs().max()
            torch.testing.assert_close(found[name].cpu() / scale, gram / scale, rtol=1e-3, atol=1e-4)
