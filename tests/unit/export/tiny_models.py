"""Tiny random models of several architectures, on the disk as users have them."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from bitdistiller.config import ExportRecipe, Quantization
from bitdistiller.export.checkpoint import write_checkpoint
from bitdistiller.export.files import ShardWriter
from bitdistiller.export.masters import Masters
from bitdistiller.export.registry import get_layout

SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 200,
    "max_position_embeddings": 64,
    "head_dim": 32,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "llama-tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**{key: value for key, value in SHAPE.items() if key != "head_dim"}),
    "qwen3": Qwen3Config(**SHAPE),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
}


@torch.no_grad()
def make_model(name):
    """A random model whose first layer also has groups of one sign, constant groups and zeros."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).float()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):
            parameter.normal_(std=0.1)
    weight = model.model.layers[0].mlp.gate_proj.weight
    weight[0].abs_()
    weight[1].abs_().neg_()
    weight[2] = 0.3
    weight[3] = 0.0
    return model


def recipe(number_format="int2", group_size=64, dtype="bfloat16", scale_dtype="bfloat16", pad=False):
    quantization = Quantization(format=number_format, group_size=group_size, scale_dtype=scale_dtype, pad=pad)
    return ExportRecipe(quantization=quantization, dtype=dtype)


def pack(weights, chosen, directory, clip=None, layout=None, limit=None):
    """Write a packed checkpoint without the life of a stage."""
    directory.mkdir(parents=True)
    work = directory.parent / f"{directory.name}.work"
    work.mkdir()
    layout = layout or get_layout(chosen)
    write_checkpoint(Masters(weights, chosen.quantization, clip), layout, directory, ShardWriter(work, limit))
    return directory
