"""How the GPUs of one job divide over copies of a model."""

from __future__ import annotations

from dataclasses import dataclass

from bitdistiller.errors import InputError

SHARE_FOR_WEIGHTS = 0.6
"""Of a GPU's memory; the rest is for the keys and values of the sequences in flight, and for activations."""


@dataclass(frozen=True)
class Placement:
    """`tensor` GPUs share each of `copies` copies of the model; without a GPU both are 1."""

    tensor: int = 1
    copies: int = 1


def place(gpus: int, heads: int, weight_bytes: float, gpu_bytes: float, tensor: int | None = None) -> Placement:
    """
    The placement on `gpus` equal GPUs of `gpu_bytes` each, for a model with `heads` attention heads.

    tensor: GPUs for each copy; None takes the fewest that divide the heads and of which the weights fill no more than
    SHARE_FOR_WEIGHTS, or the most there are. Raises InputError when `tensor` GPUs are not there or do not divide the
    heads.
    """
    if not gpus:
        return Placement()
    if tensor is not None:
        if tensor > gpus or heads % tensor:
            raise InputError(
                f"tensor_parallel: {tensor}: accepted: a divisor of the model's {heads} attention heads, "
                f"at most the {gpus} GPUs of the job"
            )
        return Placement(tensor, gpus // tensor)
    fitting = [n for n in range(1, gpus + 1) if heads % n == 0]
    enough = [n for n in fitting if weight_bytes / n <= SHARE_FOR_WEIGHTS * gpu_bytes]
    chosen = enough[0] if enough else fitting[-1]
    return Placement(chosen, gpus // chosen)
