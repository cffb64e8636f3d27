"""AutoRound (Cheng et al., arXiv 2309.05516) by auto-round: rounding and ranges tuned by signed gradients."""

from __future__ import annotations

import torch

from bitdistiller.baselines.base import Chosen, Refusal, Result, Task

LIBRARIES = ("auto-round",)
BATCH_SIZE = 8


def quantise(task: Task) -> Result:
    """The library's defaults: 200 steps a block, batches of 8 sequences, asymmetric integers."""
    from auto_round import AutoRound
    from torch.utils.data import DataLoader

    samples = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in task.tokens]
    rounding = AutoRound(
        task.model,
        tokenizer=task.tokenizer,
        bits=task.bits,
        group_size=task.quantization.group_size,
        sym=False,
        scale_dtype=getattr(torch, task.quantization.scale_dtype),
        layer_config={name: {"bits": 16} for name in task.others},
        dataset=DataLoader(samples, batch_size=BATCH_SIZE),
        seqlen=task.tokens.shape[1],
        nsamples=len(samples),
        batch_size=min(BATCH_SIZE, len(samples)),
        seed=task.seed,
        device_map="cuda" if torch.cuda.is_available() else "cpu",
        enable_torch_compile=False,
        low_cpu_mem_usage=False,
    )
    model, _ = rounding.quantize()
    return Result(model, lambda name: _chosen(task, model, name))


def _chosen(task: Task, model: torch.nn.Module, name: str) -> Chosen:
    """Codes from the weight, which lies on the grid already."""
    module = model.get_submodule(name)
    if getattr(module, "scale", None) is None:
        raise Refusal(f"{name} was left unquantised")
    weight = module.weight.detach()
    scale = module.scale.reshape(len(weight), -1)
    zero_point = module.zp.reshape(len(weight), -1).to(torch.int32)
    ratio = weight.float().view(*scale.shape, -1) / scale.float().unsqueeze(-1)
    codes = (torch.round(ratio) + zero_point.unsqueeze(-1)).clamp(0, 2**task.bits - 1)
    return Chosen(codes.view(weight.shape).to(torch.uint8), scale, zero_point, weight)
