"""Fake quantisation forward and backward, beside the naive formula with autograd: `python benchmarks/fake_quantize.py`.

Writes benchmarks/fake_quantize.csv. On a CUDA device also the share of the copy bandwidth that the forward reaches,
and its share of a training step of one LLaMA-2-7B block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from measure import machine, number, peak_mib, seconds, write_csv
from reference.formats import fake_quantize as naive

from bitdistiller import kernels
from bitdistiller.formats import get_format
from bitdistiller.layers import quantize_linears

SIZE, GROUP, RUNS = 4096, 128, 7
FORMATS = ("int2", "int3", "nf3", "sym4")
FORMS = {"cpu": ("eager", "compiled"), "cuda": ("eager", "triton")}


def main() -> None:
    """Measure on the CPU, and on a GPU where there is one."""
    write_csv("fake_quantize", rows("cpu"))
    if torch.cuda.is_available():
        write_csv("fake_quantize", rows("cuda"))


def rows(device: str) -> Iterator[dict[str, Any]]:
    """One row for each format and form: medians, ratios to the naive formula, peak memory beyond the inputs."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(SIZE, SIZE, generator=generator) * 0.02).to(device)
    upstream = torch.randn(SIZE, SIZE, generator=generator).to(device)
    copy = seconds(lambda: weight.clone(), RUNS)
    step = training_step_share() if device == "cuda" else ""
    for name in FORMATS:
        base_time = base_peak = 0.0
        for form in ("naive", *FORMS[device]):
            forward, both = measured(name, form, weight, upstream)
            time, peak = seconds(both, RUNS), peak_mib(both, device)
            if form == "naive":
                base_time, base_peak = time, peak
            yield {
                "device": device,
                "shape": f"{SIZE}x{SIZE}",
                "group_size": GROUP,
                "format": name,
                "form": form,
                "forward_ms": number(1e3 * seconds(forward, RUNS)),
                "forward_backward_ms": number(1e3 * time),
                "times_faster": number(base_time / time),
                "peak_mib": number(peak),
                "share_of_naive_peak": number(peak / base_peak),
                "forward_share_of_copy_bandwidth": number(copy / seconds(forward, RUNS)) if device == "cuda" else "",
                "share_of_training_step": step if (name, form) == ("int2", "triton") else "",
                "machine": machine(device),
            }


def measured(
    name: str, form: str, weight: torch.Tensor, upstream: torch.Tensor
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Functions that run the forward alone, and forward with backward."""
    number_format = get_format(name, "bfloat16")

    def quantize(w: torch.Tensor) -> torch.Tensor:
        if form == "naive":
            return naive(name, w, GROUP, scale_dtype=torch.bfloat16)
        with kernels.using(form):
            return number_format.fake_quantize(w, GROUP)

    def forward() -> None:
        with torch.no_grad():
            quantize(weight)

    def both() -> None:
        leaf = weight.detach().requires_grad_()
        values = quantize(leaf)
        with kernels.using("eager" if form == "naive" else form):
            values.backward(upstream)

    return forward, both


def training_step_share(tokens: int = 4096) -> str:
    """Share of fake quantisation in forward, recomputation and backward of one LLaMA-2-7B block in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(num_hidden_layers=1, use_cache=False)
    model = LlamaForCausalLM(config).cuda()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(config.vocab_size, (4, tokens // 4), device="cuda")

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            model.model(ids).last_hidden_state.square().mean().backward()

    plain = seconds(step, RUNS)
    quantize_linears(model, get_format("int2", "bfloat16"), GROUP)
    quantised = seconds(step, RUNS)
    return number((quantised - plain) / quantised)


if __name__ == "__main__":
    main()
