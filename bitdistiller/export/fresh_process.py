"""A fresh Python process that loads a checkpoint as its user would, and answers with logits and hashes.

Run as a script, this file is that process. Packed compressed-tensors checkpoints are loaded there by plain
transformers, without this package; only look-up checkpoints need it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


class FreshProcess:
    """The other process, seen from this one; it starts importing at once, so that this one can work meanwhile."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = Path(checkpoint).resolve()

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        quiet = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(self.checkpoint), self._folder.name],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | quiet | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        return self

    def answer(self, tokens: Tensor) -> tuple[Tensor, dict[str, str]]:
        """Logits of `tokens` and the hash of every parameter; RuntimeError with its last words when it fails."""
        folder = Path(self._folder.name)
        save_file({"tokens": tokens}, folder / "question.safetensors")
        _, words = self._process.communicate("go\n")
        if self._process.returncode != 0:
            raise RuntimeError(f"{self.checkpoint}: cannot be loaded in a fresh process:\n{words[-2000:]}")
        with safe_open(folder / "answer.safetensors", "pt") as reply:
            return reply.get_tensor("logits"), json.loads(reply.metadata()["hashes"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()


def fingerprints(model: Any) -> dict[str, str]:
    """A hash of the dtype and values of every parameter; -0 counts as 0."""
    return {name: _hash(parameter.detach()) for name, parameter in model.named_parameters()}


def _hash(tensor: Tensor) -> str:
    plain = (tensor + 0.0).contiguous().view(torch.uint8)
    return f"{tensor.dtype} {hashlib.blake2b(plain.numpy(), digest_size=16).hexdigest()}"


def _load(checkpoint: str) -> Any:
    with open(os.path.join(checkpoint, "config.json"), encoding="utf-8") as handle:
        method = json.load(handle)["quantization_config"]["quant_method"]
    if method == "bitdistiller":
        from bitdistiller import load_model

        return load_model(checkpoint)
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    if any(info.values()):
        raise RuntimeError(f"{checkpoint}: {info}")
    return model.eval()


def main(checkpoint: str, folder: str) -> None:
    """Load, wait for the question, answer it."""
    model = _load(checkpoint)
    sys.stdin.readline()
    with torch.inference_mode():
        logits = model(load_file(Path(folder, "question.safetensors"))["tokens"]).logits
    metadata = {"hashes": json.dumps(fingerprints(model))}
    save_file({"logits": logits.contiguous()}, Path(folder, "answer.safetensors"), metadata=metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
