"""Tiny random models of every supported architecture, in memory."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 80,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": lambda **more: LlamaConfig(**SHAPE, **more),
    "mistral": lambda **more: MistralConfig(**SHAPE, sliding_window=8, **more),
    "qwen2": lambda **more: Qwen2Config(
        **SHAPE, use_sliding_window=True, sliding_window=8, max_window_layers=1, **more
    ),
    "qwen3": lambda **more: Qwen3Config(**SHAPE, head_dim=32, attention_bias=True, **more),
}
ARCHITECTURES = tuple(CONFIGS)


@torch.no_grad()
def build(architecture, tied=False, dtype=torch.float32):
    """A random model with biases that are not zero; the seed is fixed."""
    torch.manual_seed(11)
    config = CONFIGS[architecture](tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.1)
    return model
