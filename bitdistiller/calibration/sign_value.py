"""Sign-value-independent decomposition: the start of a 1-bit layer (OneBit, arXiv 2402.11295, section 3.3).

`weight ~ sign(weight) * (weight_scale input_factor^T)`, where the outer product is the best rank-1 approximation of
`|weight|`. Non-negative factorisation finds it up to how the magnitude is split between both vectors; the split matters
for Adam, whose steps do not scale with them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bitdistiller.errors import InputError

TOLERANCE, ITERATIONS, SEED = 1e-4, 200, 0
LATENT = 0.01
"""Magnitude at which latent weights start; with Adam at 4e-4 about 25 equal steps turn a sign."""


def sign_value_decomposition(
    weight: Tensor, method: Literal["nmf", "svd"] = "nmf", name: str = "weight"
) -> tuple[Tensor, Tensor]:
    """
    weight_scale (out,) and input_factor (in,), float32 and non-negative, of a weight (out, in).

    nmf: as scikit-learn's NMF with one component, random start and seed 0, bit for bit (the authors' recipe); it works
    on the host. svd: the leading singular vectors, each times the square root of the singular value.
    Raises InputError, naming the layer `name`, for anything but a finite floating-point matrix.
    """
    if weight.ndim != 2 or not weight.is_floating_point() or not weight.numel():
        raise InputError(f"{name}: {weight.dtype} of shape {tuple(weight.shape)}; accepted: a floating-point matrix")
    magnitude = weight.detach().float().abs()
    if not bool(magnitude.isfinite().all()):
        raise InputError(f"{name}: the weight holds infinite values or NaN")
    if method == "svd":
        return _leading_singular_vectors(magnitude)
    scale, factor = _factorise(magnitude.cpu().numpy())
    return torch.from_numpy(scale).to(weight.device), torch.from_numpy(factor).to(weight.device)


def latent_weight(weight: Tensor, magnitude: float = LATENT) -> Tensor:
    """The latent weight that a 1-bit layer starts with: the signs of `weight` times `magnitude`; zeros stay zeros."""
    return weight.detach().sign().mul_(magnitude)


def _factorise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank-1 factorisation of non-negative x (out, in) float32 by coordinate descent on squared error."""
    mean = np.sqrt(x.mean())
    random = np.random.RandomState(SEED)
    h = np.abs(mean * random.standard_normal(size=(1, x.shape[1])).astype(x.dtype)).T.copy()
    w = np.abs(mean * random.standard_normal(size=(x.shape[0], 1)).astype(x.dtype))
    first = None
    for _ in range(ITERATIONS):
        violation = _descend(x, w, h) + _descend(x.T, h, w)
        first = violation if first is None else first
        if first == 0 or violation <= TOLERANCE * first:
            break
    return w[:, 0], h[:, 0]


def _descend(x: np.ndarray, w: np.ndarray, h: np.ndarray) -> float:
    """One exact step for `w` (rows, 1), in place, with `h` (columns, 1) fixed; the projected gradient before it."""
    hessian = (h.T @ h)[0, 0]
    gradient = hessian * w - x @ h
    projected = np.where(w == 0, np.minimum(gradient, 0), gradient)
    if hessian != 0:
        np.maximum(w - gradient / hessian, 0, out=w)
    return float(np.abs(projected).sum(dtype=np.float64))


def _leading_singular_vectors(magnitude: Tensor) -> tuple[Tensor, Tensor]:
    left, values, right = torch.linalg.svd(magnitude, full_matrices=False)
    root = values[0].sqrt()
    return left[:, 0].abs() * root, right[0].abs() * root
