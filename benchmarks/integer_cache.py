"""A KV cache in integers beside one of dense values, for a model of LLM-QAT: `python benchmarks/integer_cache.py`.

Writes benchmarks/integer_cache.csv. The model is a random LLaMA with grouped-query attention in bfloat16, whose keys
and values are quantised in both cases, so that both give the same tokens. Forms take turns; a time is that of one token
behind a context of that many. Bytes are those of the caches' tensors after it, all layers together.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from measure import machine, number, timings, write_csv
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from bitdistiller.config import MixedBits
from bitdistiller.generation.integer_cache import IntegerCache, cache_bytes
from bitdistiller.layers import mix_linears

SHAPE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
}
CONTEXTS = {"cpu": (512, 2048), "cuda": (512, 2048, 8000)}
BITS, RUNS = (4, 8), 9


def main() -> None:
    """Measure on the CPU, and on a GPU where there is one."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        write_csv("integer_cache", (row for context in CONTEXTS[device] for row in rows(device, context)))


@torch.inference_mode()
def rows(device: str, context: int) -> Iterator[dict[str, Any]]:
    """One row for each width of the cache."""
    for bits in BITS:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SHAPE)).to(device, torch.bfloat16).eval()
        mix_linears(model, MixedBits(32, 32, bits))
        prompt = torch.randint(SHAPE["vocab_size"], (1, context), device=device)
        caches = {"dense": DynamicCache(config=model.config), "integers": IntegerCache(model)}
        for cache in caches.values():
            model(input_ids=prompt, past_key_values=cache, logits_to_keep=1)
        times: dict[str, list[float]] = {name: [] for name in caches}
        for turn in range(RUNS):
            for name, cache in caches.items():
                times[name] += timings(partial(_step, model, cache), 1, warm_up=turn == 0)
        dense, integers = (1000 * statistics.median(times[name]) for name in caches)
        sizes = [cache_bytes(cache) for cache in caches.values()]
        yield {
            "device": device,
            "context": context,
            "cache_bits": bits,
            "dense_bytes": sizes[0],
            "integer_bytes": sizes[1],
            "times_smaller": number(sizes[0] / sizes[1]),
            "dense_milliseconds": number(dense),
            "integer_milliseconds": number(integers),
            "times_slower": number(integers / dense),
            "machine": machine(device),
        }


def _step(model: Any, cache: Any) -> None:
    """One token more, which is then forgotten."""
    model(input_ids=torch.ones(1, 1, dtype=torch.int64, device=model.device), past_key_values=cache)
    cache.crop(-1)


if __name__ == "__main__":
    main()
