"""An export holds one shard in memory, however large the model is."""

import ctypes
import threading

import torch
from safetensors.torch import save_file
from tiny_models import recipe
from transformers import LlamaConfig

from bitdistiller.export import files, stage

HIDDEN, BLOCK_MB = 512, 25


def write_model(directory, blocks):
    """A bfloat16 Llama of about 25 MB a block."""
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=15 * HIDDEN,
        num_hidden_layers=blocks,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=64,
        tie_word_embeddings=True,
    )
    config.save_pretrained(directory)
    attention = {f"self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
    mlp = {"mlp.gate_proj.weight": (15 * HIDDEN, HIDDEN), "mlp.up_proj.weight": (15 * HIDDEN, HIDDEN)}
    norms = {f"{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    shapes = {**attention, **mlp, "mlp.down_proj.weight": (HIDDEN, 15 * HIDDEN), **norms}
    tensors = {
        f"model.layers.{i}.{name}": torch.randn(s).bfloat16() for i in range(blocks) for name, s in shapes.items()
    }
    tensors |= {"model.embed_tokens.weight": torch.randn(64, HIDDEN).bfloat16()}
    tensors |= {"model.norm.weight": torch.ones(HIDDEN).bfloat16()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def anonymous():
    with open("/proc/self/status") as handle:
        return next(int(line.split()[1]) for line in handle if line.startswith("RssAnon")) / 1024


class Peak:
    """The most anonymous memory that this process takes while it is entered beyond what it had before, in MB."""

    def __enter__(self):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before would be used again, unseen
        self.before, self.value, self._over = anonymous(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._over.wait(0.002):
            self.value = max(self.value, anonymous() - self.before)

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def test_peak_memory_does_not_grow_with_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_SHARD_BYTES", 4 << 20)
    monkeypatch.setenv("BITDISTILLER_KERNELS", "eager")  # a compiler's memory would count
    peaks = {}
    for blocks in (1, 2, 10):
        directory = tmp_path / f"base{blocks}"
        directory.mkdir()
        write_model(directory, blocks)
        with Peak() as peak:
            stage.run(
                recipe("int3"),
                weights=directory,
                clip=None,
                output=tmp_path / f"out{blocks}",
                work=tmp_path / f"work{blocks}",
                time_budget=None,
                verify=False,
            )
        peaks[blocks] = peak.value
    assert len(list((tmp_path / "out10" / "checkpoint").glob("*.safetensors"))) > 5
    assert peaks[10] - peaks[2] < 2 * BLOCK_MB
