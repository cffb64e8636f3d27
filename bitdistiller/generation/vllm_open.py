"""vLLM on all GPUs of a job."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoTokenizer

from bitdistiller.generation.engine import Engine
from bitdistiller.generation.engines import Wanted
from bitdistiller.generation.placement import Placement, place
from bitdistiller.generation.replicas import Replicas
from bitdistiller.generation.serving import gpu_count
from bitdistiller.generation.vllm_engine import VllmEngine, context_of


def open_vllm(wanted: Wanted) -> Engine:
    """The model on all GPUs of this job, in as many copies as `place` says; on the CPU where there is none."""
    config = AutoConfig.from_pretrained(wanted.model)
    placement = place(
        gpu_count(), config.num_attention_heads, weight_bytes(wanted), gpu_bytes(), wanted.tensor_parallel
    )
    return VllmEngine(wanted, placement.tensor) if placement.copies == 1 else copies(wanted, placement)


def copies(wanted: Wanted, placement: Placement) -> Replicas:
    """One engine for several copies of the model."""
    return Replicas(
        VllmEngine, wanted, placement, AutoTokenizer.from_pretrained(wanted.model), context_of(wanted.model)
    )


def weight_bytes(wanted: Wanted) -> float:
    """Size of the model's weights in the precision that is wanted."""
    stored = sum(path.stat().st_size for path in wanted.model.glob("*.safetensors"))
    declared = AutoConfig.from_pretrained(wanted.model).dtype or torch.float32
    return stored * getattr(torch, wanted.dtype).itemsize / declared.itemsize


def gpu_bytes() -> float:
    """Memory of the first GPU; 0 without one."""
    return float(torch.cuda.get_device_properties(0).total_memory) if gpu_count() else 0.0
