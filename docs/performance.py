"""Write docs/performance.md from the CSV files in benchmarks/: `python docs/performance.py`."""

from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, str]

HEAD = """# Performance

Ratios measured side by side in one run. This page is written by `python docs/performance.py` from the CSV files in
`benchmarks/`, and those by the scripts beside them; nothing here is from a paper. A device without rows has not been
measured.

"""

# file -> heading, text, columns of the table by heading
SECTIONS: dict[str, tuple[str, str, dict[str, str]]] = {
    "fake_quantize": (
        "Fake quantisation",
        "`python benchmarks/fake_quantize.py`: a float32 weight of 4096x4096 in groups of 128 with bfloat16 scales. "
        "*Naive* is the formula in plain torch with autograd (`tests/reference/formats.py`). Times are medians of 7; "
        "peak is memory beyond the weight and the upstream gradient, of which values and gradient are 128 MiB.",
        {
            "Device": "device",
            "Format": "format",
            "Form": "form",
            "Forward, ms": "forward_ms",
            "With backward, ms": "forward_backward_ms",
            "Times faster": "times_faster",
            "Peak, MiB": "peak_mib",
            "Share of naive peak": "share_of_naive_peak",
            "Forward, share of copy bandwidth": "forward_share_of_copy_bandwidth",
            "Share of a training step": "share_of_training_step",
        },
    ),
    "integer_cache": (
        "KV cache in integers",
        "`python benchmarks/integer_cache.py`: one token of a random bfloat16 LLaMA (8 layers, 4 key-value heads of "
        "64) behind a context, with LLM-QAT's keys and values kept as codes or as dense tensors; both give the same "
        "logits. Milliseconds are medians of 9 by turns, measured beside other jobs; bytes are those after the token.",
        {
            "Device": "device",
            "Context": "context",
            "Bits": "cache_bits",
            "Dense, bytes": "dense_bytes",
            "Integers, bytes": "integer_bytes",
            "Times smaller": "times_smaller",
            "Dense, ms": "dense_milliseconds",
            "Integers, ms": "integer_milliseconds",
            "Times slower": "times_slower",
        },
    ),
    "packed_linear": (
        "Packed weights",
        "`python benchmarks/packed_linear.py`: the product of one layer with 1, 4 and 16 rows of bfloat16, its "
        "weight kept packed (`bitdistiller chat --packed`, `speed --packed`, `load_model(path, packed=True)`). "
        "Shapes are input by output features; groups of 128 with float32 scales in memory. Each call reads another "
        "copy of the weight. *int4, PyTorch* is the library's kernel for 4-bit integers, which keeps zero point "
        "times scale in bfloat16 and so does not have exactly our values. On a CPU our kernels decode to float32 "
        "and are limited by arithmetic, not by memory: faster than bfloat16 at batch 1 and 4, slower at 16, where "
        "bfloat16 has instructions of its own. From 24 rows on a block of the weight is dequantised and multiplied "
        "by the library. The Triton kernels for GPUs are compiled and run in the interpreter by the tests; no GPU "
        "has measured them yet.",
        {
            "Device": "device",
            "Shape": "shape",
            "Batch": "batch",
            "Weight": "form",
            "Bits/weight": "bits_per_weight",
            "Microseconds": "microseconds",
            "Times faster than bf16": "times_faster_than_bf16",
            "GB/s": "gigabytes_per_second",
            "Percent of copy bandwidth": "percent_of_copy_bandwidth",
        },
    ),
    "clip": (
        "Clip search",
        "`python benchmarks/clip.py`: *naive, group by group* is the double of the tests on stored tokens; *naive, 256 "
        "rows at a time* is the same search batched as the released code does it. Ours includes the Gram matrices. The "
        "last rows are whole processes that search one layer of LLaMA-2-7B's largest shape.",
        {
            "Device": "device",
            "Layer": "shape",
            "Tokens": "tokens",
            "Search": "search",
            "Seconds": "seconds",
            "Times faster than naive": "times_faster_than_naive",
            "Than batched naive": "times_faster_than_batched_naive",
            "Peak, MiB": "peak_mib",
            "Groups with the same ends": "identical_groups",
            "Error of the others, relative": "largest_relative_error_of_the_rest",
        },
    ),
    "calibration_memory": (
        "Calibration, block by block",
        "`python benchmarks/calibration_memory.py`: models of LLaMA-2-7B's shapes with few blocks, each job a fresh "
        "process. *grams* walks the model and writes its Gram matrices, *importance* weights their tokens, *clip* also "
        "searches (INT2); *whole model* is the same walk over a model that transformers has loaded at once. The host "
        "peak counts mapped pages of the model's files, the anonymous peak does not.",
        {
            "Job": "job",
            "Blocks": "blocks",
            "Tokens": "tokens",
            "Host peak, MB": "host_peak_mb",
            "Anonymous, MB": "host_anonymous_peak_mb",
            "GPU peak, MB": "device_peak_mb",
            "Seconds": "seconds",
        },
    ),
    "train_step": (
        "A training step",
        "`python benchmarks/train_step.py`: INT2, group 128, CAKLD, random weights, float32 on a CPU; steps of 16 "
        "sequences of an eighth to the full length (255 or 256). *Naive* is the published recipe in plain torch: "
        "fake quantisation by autograd, logits of all positions, a live teacher, padding to the longest. Ours packs; "
        "*cached* reads the teacher's hidden states from disk. Medians of 2 turns, each a fresh process of 4 steps; "
        "peak is memory beyond the imports. Shares of time are those of the last step.",
        {
            "Device": "device",
            "Model": "model",
            "Step": "step",
            "Tokens/s": "tokens_per_second",
            "Times naive": "times_naive",
            "Peak, MiB": "peak_mib",
            "Share of naive peak": "share_of_naive_peak",
            "Padding": "padding",
            "Teacher": "teacher",
            "Student": "student",
            "Quantiser": "quantiser",
            "Loss": "loss",
            "Optimizer": "optimizer",
            "MFU": "mfu",
            "Hours of the paper's run": "hours_of_paper_run",
        },
    ),
    "generate": (
        "Continuous batching",
        "`python benchmarks/generate.py`: the trained demo teacher completes the prompts of the demo's first shard (or "
        "the number given) in order of length, 64 at once, float32. *Static* is transformers' `generate` on padded "
        "batches of 64, what this project used before; continuous batches save after every 256 prompts, or once. The "
        "demo teacher's completions of prompts of one length are nearly of one length, so that static batches waste a "
        "fifth of their rows only; *spread lengths* gives every prompt a limit, exponentially distributed, mean 28. "
        "Medians of 3 turns; *equal* is the share of completions that are the static ones; peak is memory beyond the "
        "model.",
        {
            "Device": "device",
            "Decoding": "decoding",
            "Batches": "form",
            "Prompts": "prompts",
            "Tokens/s": "tokens_per_second",
            "Times static": "times_static",
            "Equal": "equal",
            "Peak, MiB": "peak_mib",
            "Share of static peak": "share_of_static_peak",
        },
    ),
    "loss": (
        "Loss by chunks",
        "`python benchmarks/loss.py`: CAKLD forward and backward from float32 hidden states and heads, tokens x "
        "vocabulary as given. *Full logits* is the formula on the logits of all tokens with autograd. The forms take "
        "turns; times are medians of 3, peak is memory beyond the inputs, gradients included. The difference is the "
        "largest of loss and gradients, as a share of the largest value; the top-k teacher has another loss.",
        {
            "Device": "device",
            "Logits": "shape",
            "Hidden size": "hidden_size",
            "Form": "form",
            "Seconds": "seconds",
            "Fastest": "fastest",
            "Times faster": "times_faster",
            "Peak, MiB": "peak_mib",
            "Share of naive peak": "share_of_naive_peak",
            "Difference": "largest_relative_difference",
        },
    ),
    "teacher_cache": (
        "Live and cached teachers",
        "`python benchmarks/teacher_cache.py`: TinyStories-656K (hidden size 128, vocabulary 2048) distilled to INT2, "
        "192 steps of 16 sequences, all runs alike but for the teacher; float32. *Bytes per token* are those of the "
        "cache's files; LLaMA-2-7B's hidden states in bfloat16 take 8192, its 32 most probable tokens as many as here. "
        "The runs shared the machine with other work, so their times are left out; *A training step* has those of "
        "hidden states. Live and hidden differ by rounding alone, which 192 steps make larger (standard error 0.8).",
        {
            "Device": "device",
            "Teacher": "teacher",
            "Bytes per token": "bytes_per_token",
            "Seconds to cache": "cache_seconds",
            "ms per step": "ms_per_step",
            "Teacher's share of a step": "teacher_share",
            "Peak, MiB": "peak_mib",
            "Perplexity": "perplexity",
            "Change": "perplexity_lost",
        },
    ),
}


def main() -> None:
    """Write the page."""
    parts = [section(name, *content) for name, content in SECTIONS.items()]
    (ROOT / "docs" / "performance.md").write_text(HEAD + "\n".join(parts), encoding="utf-8")


def section(name: str, heading: str, text: str, columns: dict[str, str]) -> str:
    """One benchmark: what was measured, on what, and the table."""
    path = ROOT / "benchmarks" / f"{name}.csv"
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows))
    return f"## {heading}\n\n{text}\n\n{table(rows, columns)}\nMeasured on: {machines}.\n"


def table(rows: list[Row], columns: dict[str, str]) -> str:
    """A Markdown table; columns that are empty in every row are left out."""
    kept = {title: key for title, key in columns.items() if any(row[key] for row in rows)}
    lines = ["| " + " | ".join(kept) + " |", "|" + " --- |" * len(kept)]
    lines += ["| " + " | ".join(row[key] or "–" for key in kept.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
