"""The clip search beside the naive one: `python benchmarks/clip.py`; writes benchmarks/clip.csv.

A layer of 1024x1024 with 512 calibration tokens, in one process: the naive double of the tests (group by group, on
tokens), the same search batched over rows as the released code batches it, and ours. Then the peak memory of a fresh
process that searches a layer of 4096x11008, for two numbers of calibration tokens.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from measure import machine, number, peak_mib, process_peak_mib, seconds, write_csv
from reference.clip import search_clip as naive_search
from reference.clip import search_clip_in_batches

from bitdistiller import kernels
from bitdistiller.calibration import GramAccumulator, gram_matrix, search
from bitdistiller.formats import get_format

ROWS = COLUMNS = 1024
TOKENS, GROUP = 512, 128
LARGE = (4096, 11008)
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def main() -> None:
    """Measure and write, or (as a child process) search one large layer and print its time and peak."""
    if len(sys.argv) > 1:
        sys.stdout.write(large_layer(int(sys.argv[1])))
        return
    for device in DEVICES:
        write_csv("clip", [*compared(device), *(large_rows() if device == "cpu" else [])])


def layer(rows: int, columns: int, tokens: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and inputs whose channels differ in size as those of language models do."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.randn(columns, generator=generator).exp()
    weight = torch.randn(rows, columns, generator=generator) * 0.02
    return weight.to(device), (torch.randn(tokens, columns, generator=generator) * scales).to(device)


def compared(device: str) -> Iterator[dict[str, Any]]:
    """The three searches side by side."""
    weight, x = layer(ROWS, COLUMNS, TOKENS, device)
    number_format = get_format("int2")
    with kernels.using("eager"):
        expected = naive_search(weight, x, "int2", GROUP)
        naive_time = seconds(lambda: naive_search(weight, x, "int2", GROUP), runs=2, warm_up=0)
        batched = lambda: search_clip_in_batches(weight, x, GROUP, 2)  # noqa: E731
        batched_time, batched_peak = seconds(batched, runs=2, warm_up=0), peak_mib(batched, device)
    yield row(device, "naive, group by group", naive_time, naive_time, batched_time)
    yield row(device, "naive, 256 rows at a time", batched_time, naive_time, batched_time, peak=batched_peak)
    for form in ("eager", "auto") if device == "cpu" else ("auto",):
        with kernels.using(form):
            ours = lambda: search(weight, gram_matrix(x, GROUP), number_format, GROUP)  # noqa: E731
            found, time_taken, peak = ours(), seconds(ours, runs=7), peak_mib(ours, device)
        same, error = agreement(found, expected, len(x))
        label = "ours, eager" if form == "eager" else "ours"
        yield row(device, label, time_taken, naive_time, batched_time, peak, same, error)


def row(
    device: str,
    search_name: str,
    time_taken: float,
    naive_time: float,
    batched_time: float,
    peak: float | None = None,
    same: float | None = None,
    error: float | None = None,
    shape: str = f"{ROWS}x{COLUMNS}",
    tokens: int = TOKENS,
) -> dict[str, Any]:
    """One line of the CSV."""
    compares = naive_time > 0
    return {
        "device": device,
        "shape": shape,
        "tokens": tokens,
        "group_size": GROUP,
        "format": "int2",
        "search": search_name,
        "seconds": number(time_taken),
        "times_faster_than_naive": number(naive_time / time_taken) if compares else "",
        "times_faster_than_batched_naive": number(batched_time / time_taken) if compares else "",
        "peak_mib": "" if peak is None else number(peak),
        "identical_groups": "" if same is None else f"{same:.6f}",
        "largest_relative_error_of_the_rest": "" if error is None else f"{error:.1e}",
        "machine": machine(device),
    }


def agreement(found: Any, expected: tuple[torch.Tensor, ...], tokens: int) -> tuple[float, float]:
    """Share of groups with the naive search's ends, and how much larger the error of the others is at most."""
    high, low, error = (tensor.cpu() for tensor in expected)
    same = torch.isclose(found.maximum.cpu(), high) & torch.isclose(found.minimum.cpu(), low)
    ours = found.error_after.cpu().squeeze(-1) / tokens
    worse = ((ours - error) / error)[~same.squeeze(-1)]
    return same.double().mean().item(), max(worse.max().item(), 0.0) if len(worse) else 0.0


def large_rows() -> Iterator[dict[str, Any]]:
    """Time and whole-process peak of one large layer, in fresh processes."""
    for tokens in (512, 8192):
        command = [sys.executable, __file__, str(tokens)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        time_taken, peak = map(float, output.split())
        name = "ours, whole process"
        yield row("cpu", name, time_taken, 0, 0, peak, shape=f"{LARGE[0]}x{LARGE[1]}", tokens=tokens)


def large_layer(tokens: int) -> str:
    """Accumulate the Gram of `tokens` tokens batch by batch and search; seconds of the search, and peak MiB."""
    grams = GramAccumulator(GROUP)
    weight, _ = layer(*LARGE, 1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(tokens // 512):
        grams.add(torch.randn(512, LARGE[1], generator=generator))
    begin = time.perf_counter()
    search(weight, grams.gram(), get_format("int2", "bfloat16"), GROUP)
    return f"{time.perf_counter() - begin} {process_peak_mib()}\n"


if __name__ == "__main__":
    main()
