"""Memory and time of the calibration at LLaMA-2-7B's shapes, for models of a few blocks.

    python benchmarks/calibration_memory.py --blocks 1 2 4 --texts 8

Each model has random bfloat16 weights and is written block by block to a temporary folder. Every row is a fresh
process: `grams` walks the model and writes its Gram matrices (`clip --shard 0 --num-shards 1`), `importance` does so
with weighted tokens, `clip` also searches, and `whole model` is the naive reference, the same walk over a model that
transformers has loaded at once. `host_peak_mb` is the kernel's high-water mark (VmHWM: mapped pages of the files
count), `host_anonymous_peak_mb` the largest sample of RssAnon, `device_peak_mb` PyTorch's, empty without CUDA.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import machine

HIDDEN, FEED_FORWARD, HEADS, VOCABULARY, LENGTH = 4096, 11008, 32, 32000, 512
HERE = Path(__file__)
COLUMNS = (
    "job",
    "blocks",
    "tokens",
    "host_peak_mb",
    "host_anonymous_peak_mb",
    "device_peak_mb",
    "seconds",
    "machine",
)


def write_model(directory: Path, blocks: int) -> Path:
    """A random model of LLaMA-2-7B's shapes with its own tokenizer of one word a token."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        num_attention_heads=HEADS,
        num_hidden_layers=blocks,
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(directory)
    _write_tokenizer(directory)
    outside = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    parts = [outside | {"lm_head.weight": (VOCABULARY, HIDDEN)}, *(_block_shapes(index) for index in range(blocks))]
    files = {}
    for number, shapes in enumerate(parts):
        name = f"model-{number + 1:05}-of-{len(parts):05}.safetensors"
        _write_tensors(directory / name, shapes)
        files |= dict.fromkeys(shapes, name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return directory


def _block_shapes(index: int) -> dict[str, tuple[int, ...]]:
    attention = {f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
    up = {f"mlp.{name}_proj": (FEED_FORWARD, HIDDEN) for name in ("gate", "up")}
    norms = {f"{name}_layernorm": (HIDDEN,) for name in ("input", "post_attention")}
    shapes = attention | up | norms | {"mlp.down_proj": (HIDDEN, FEED_FORWARD)}
    return {f"model.layers.{index}.{name}.weight": shape for name, shape in shapes.items()}


def _write_tensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    import torch
    from safetensors.torch import save_file

    def tensor(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape).mul_(0.02).bfloat16() if len(shape) > 1 else torch.ones(shape, dtype=torch.bfloat16)

    save_file({name: tensor(shape) for name, shape in shapes.items()}, path, {"format": "pt"})


def _write_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(directory)


def write_texts(path: Path, count: int) -> Path:
    """Texts of random words, LENGTH tokens each."""
    chosen = random.Random(0)
    texts = [" ".join(f"w{chosen.randrange(VOCABULARY)}" for _ in range(LENGTH)) for _ in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def measure(command: list[object]) -> dict[str, float]:
    """Run a command; its wall time and the peaks of its memory, sampled every 20 ms."""
    begin, peaks = time.monotonic(), {"VmHWM": 0.0, "RssAnon": 0.0}
    process = subprocess.Popen([sys.executable, *map(str, command)])
    while process.poll() is None:
        for name, value in _status(process.pid).items():
            peaks[name] = max(peaks[name], value)
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    seconds = time.monotonic() - begin
    return {"host_peak_mb": peaks["VmHWM"], "host_anonymous_peak_mb": peaks["RssAnon"], "seconds": seconds}


def _status(pid: int) -> dict[str, float]:
    """VmHWM and RssAnon of a process in MB (10^6 bytes); nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.split() for line in lines if line.startswith(("VmHWM", "RssAnon")))
    return {name.rstrip(":"): int(kib) * 1024 / 1e6 for name, kib, _ in fields}


def row(job: str, model: Path, blocks: int, texts: Path, output: Path) -> dict[str, object]:
    """Measure one job; one line of the table."""
    if job == "whole model":
        command = [HERE, "--whole-model", model, texts, output]
    else:
        options = [f"--set=calibration.block_length={LENGTH}", "--texts=text", f"--path={texts}"]
        kind = ["--format=int2"] if job == "clip" else ["--shard=0", "--num-shards=1"]
        weighted = ["--set=calibration.importance=true"] if job == "importance" else []
        command = ["-m", "bitdistiller", "clip", "--model", model, "--output", output, *options, *kind, *weighted]
    measured = measure(command)
    origin = json.loads((output / "provenance.json").read_text())
    device = origin["peak_memory"].get("device_bytes")
    tokens = LENGTH * len(texts.read_text().splitlines())
    measured["device_peak_mb"] = device / 1e6 if device else ""
    rounded = {key: round(value) if value != "" else value for key, value in measured.items()}
    name = machine("cuda" if device else "cpu")
    return {"job": job, "blocks": blocks, "tokens": tokens, **rounded, "machine": name}


def whole_model(model: Path, texts: Path, output: Path) -> None:
    """The naive reference: load everything, then walk."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bitdistiller.calibration import ActivationWalk, GramOptions, calibration_tokens
    from bitdistiller.layers import block_linears
    from bitdistiller.stages.provenance import peak_memory

    lines = [json.loads(line)["text"] for line in texts.read_text().splitlines()]
    tokens = calibration_tokens(lines, AutoTokenizer.from_pretrained(model), len(lines), LENGTH)
    network = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    walk = ActivationWalk(network, tokens, "cuda" if torch.cuda.is_available() else "cpu")
    for block in walk.blocks:
        walk.step([name for name, _ in block_linears(block)], GramOptions(128))
    output.mkdir()
    (output / "provenance.json").write_text(json.dumps({"peak_memory": peak_memory()}))


def main() -> None:
    """Measure the chosen jobs and write the table, one line as each is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--texts", type=int, default=8, help=f"texts of {LENGTH} tokens")
    parser.add_argument("--jobs", nargs="+", default=["grams"], help="grams, importance, clip, 'whole model'")
    parser.add_argument("--output", type=Path, default=HERE.with_suffix(".csv"))
    parser.add_argument("--append", action="store_true", help="keep the rows that are there")
    parser.add_argument("--whole-model", type=Path, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.whole_model:
        whole_model(*arguments.whole_model)
        return
    with arguments.output.open("a" if arguments.append else "w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        if not arguments.append:
            table.writeheader()
        for blocks in arguments.blocks:
            with tempfile.TemporaryDirectory() as folder:
                model = write_model(Path(folder, "model"), blocks)
                texts = write_texts(Path(folder, "texts.jsonl"), arguments.texts)
                for number, job in enumerate(arguments.jobs):
                    table.writerow(row(job, model, blocks, texts, Path(folder, f"output-{number}")))
                    handle.flush()


if __name__ == "__main__":
    main()
