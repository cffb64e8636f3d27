"""What a GGUF file says of a model's architecture, and how its tensors are named and ordered there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from bitdistiller.export.conversion.unfit import Unfit

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
"""By `model_type` in config.json."""
ROPE_FACTORS = "rope_freqs.weight"
"""The tensor of what the rotation frequencies are divided by, for models with `rope_type: llama3`."""
SUFFIXES = (".weight", ".bias")


class Architecture:
    """A model directory as a GGUF file describes it."""

    def __init__(self, directory: Path) -> None:
        """Raises Unfit for an architecture, or a rotary embedding, that this conversion does not know."""
        self.config: Any = AutoConfig.from_pretrained(directory)
        kind = self.config.model_type
        if kind not in ARCHITECTURES:
            raise Unfit(f"{directory}: model_type {kind}; accepted for GGUF: {', '.join(ARCHITECTURES)}")
        if kind == "mistral" and getattr(self.config, "sliding_window", None):
            raise Unfit(f"{directory}: a sliding window is not written to GGUF; accepted: sliding_window: null")
        self.name = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[kind]]
        self._names = gguf.get_tensor_name_map(ARCHITECTURES[kind], self.config.num_hidden_layers)
        self._rotates_pairs = ARCHITECTURES[kind] is gguf.MODEL_ARCH.LLAMA
        self._rope = self.config.rope_parameters
        self.head_size = getattr(self.config, "head_dim", None) or (
            self.config.hidden_size // self.config.num_attention_heads
        )
        if self._rope.get("rope_type", "default") not in ("default", "llama3"):
            raise Unfit(f"{directory}: rope_type {self._rope['rope_type']}; accepted for GGUF: default, llama3")

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Write the keys that an engine needs before it reads a tensor."""
        config = self.config
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(self.head_size)
        writer.add_value_length(self.head_size)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(self.head_size)
        writer.add_rope_freq_base(self._rope["rope_theta"])
        writer.add_vocab_size(config.vocab_size)

    def tensor_name(self, name: str) -> str:
        """The name in a GGUF file of a tensor of transformers; Unfit where there is none."""
        found = self._names.get_name(name, try_suffixes=SUFFIXES)
        if found is None:
            raise Unfit(f"{name}: GGUF has no name for this tensor in architecture {self.name}")
        return found

    def ordered(self, name: str, tensor: Tensor) -> Tensor:
        """
        A tensor with its rows in the order of the file.

        Engines of the `llama` architecture rotate neighbouring features of a head where transformers rotates feature i
        with feature i + half; the rows of queries and keys are interleaved for it.
        """
        heads = {"q_proj": self.config.num_attention_heads, "k_proj": self.config.num_key_value_heads}
        count = heads.get(name.rpartition(".")[0].rpartition(".")[2])
        if not self._rotates_pairs or count is None:
            return tensor
        return tensor.unflatten(0, (count, 2, -1)).transpose(1, 2).flatten(0, 2)

    def rope_factors(self) -> Tensor | None:
        """What every rotation frequency is divided by, (head size / 2,) float32; None where it is 1."""
        if self._rope.get("rope_type", "default") == "default":
            return None
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](self.config, torch.device("cpu"))
        exponents = torch.arange(0, self.head_size, 2, dtype=torch.float32) / self.head_size
        return self._rope["rope_theta"] ** -exponents / scaled.float()
