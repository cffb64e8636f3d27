"""Number formats written as the formula reads, with gradients by autograd: the specification in code."""

import torch

NF3_NEGATIVE = [-0.2469314038753510, -0.5350227355957031, -1.0]
NF3_NEGATIVE_BOUNDARIES = [-0.1234657019376755, -0.39097706973552704, -0.7675113677978516]
NF3_POSITIVE = [0.1833375245332718, 0.3819939494132996, 0.6229856610298157, 1.0]
NF3_POSITIVE_BOUNDARIES = [0.0916687622666359, 0.2826657369732857, 0.5024898052215576, 0.8114928305149078]


def straight_through(x, replacement):
    """The value of `replacement` with the gradient of `x`."""
    return x - x.detach() + replacement.detach()


def integer(weight, bits, group_size, scale_grad=True, reference_range=False, scale_dtype=None):
    """INTb asymmetric, docs/method.md 1; differentiable."""
    levels = 2**bits - 1
    w = weight.reshape(weight.shape[0], -1, group_size)
    high, low = w.amax(-1, keepdim=True), w.amin(-1, keepdim=True)
    if not reference_range:
        high, low = high.clamp(min=0), low.clamp(max=0)
    scale = (high - low).clamp(min=1e-5) / levels
    if scale_dtype is not None:
        scale = straight_through(scale, scale.to(scale_dtype).to(scale.dtype))
    if not scale_grad:
        scale = scale.detach()
    zero_point = (-torch.round(low / scale)).clamp(0, levels).detach()
    ratio = w / scale
    codes = (straight_through(ratio, torch.round(ratio)) + zero_point).clamp(0, levels)
    return ((codes - zero_point) * scale).reshape(weight.shape)


def normal_float_tables(bits):
    """Levels and boundaries (negative side, positive side), outwards; docs/method.md 1."""
    if bits == 3:
        return (NF3_NEGATIVE, NF3_NEGATIVE_BOUNDARIES), (NF3_POSITIVE, NF3_POSITIVE_BOUNDARIES)
    offset = ((1 - 1 / (2 * (2**bits - 1))) + (1 - 1 / (2 * 2**bits))) / 2
    sides = []
    for sign, count in ((-1, 2 ** (bits - 1) - 1), (1, 2 ** (bits - 1))):
        probabilities = torch.linspace(offset, 0.5, count + 1, dtype=torch.float64)[:-1].flip(0)
        levels = (
            sign * torch.special.ndtri(probabilities) / torch.special.ndtri(torch.tensor(offset, dtype=torch.float64))
        )
        inner = torch.cat([torch.zeros(1, dtype=torch.float64), levels[:-1]])
        sides.append((levels.tolist(), ((inner + levels) / 2).tolist()))
    return tuple(sides)


def normal_float(weight, bits, group_size, scale_grad=True, scale_dtype=None):
    """NFb asymmetric, docs/method.md 1; differentiable."""
    w = weight.reshape(weight.shape[0], -1, group_size)
    below, above = normal_float_tables(bits)
    positive = _side(w, w.amax(-1, keepdim=True), *above, scale_grad, scale_dtype)
    negative = _side(w, w.amin(-1, keepdim=True), *below, scale_grad, scale_dtype)
    return torch.where(w >= 0, positive, negative).reshape(weight.shape)


def _side(w, end, levels, boundaries, scale_grad, scale_dtype):
    scale = end.abs()
    if scale_dtype is not None:
        scale = straight_through(scale, scale.to(scale_dtype).to(scale.dtype))
    if not scale_grad:
        scale = scale.detach()
    ratio = w / torch.where(scale == 0, torch.ones_like(scale), scale)
    nearest = torch.zeros_like(ratio)
    for level, boundary in zip(levels, boundaries, strict=True):
        entered = ratio >= boundary if level > 0 else ratio < boundary
        nearest = torch.where(entered, torch.full_like(nearest, level), nearest)
    error = (nearest - ratio).detach()
    return straight_through(w, nearest * scale) + (scale - scale.detach()) * error


def symmetric(weight, bits, group_size, scale_grad=True, scale_dtype=None):
    """LLM-QAT's symmetric min-max quantiser, docs/method.md 1; differentiable; `scale_grad` has no effect."""
    w = weight.reshape(weight.shape[0], -1, group_size)
    levels = torch.tensor(2 ** (bits - 1) - 1, dtype=w.dtype)
    scale = (levels / (w.abs().amax(-1, keepdim=True) + 1e-6)).detach()
    if scale_dtype is not None:
        scale = scale.to(scale_dtype).to(scale.dtype)
    value = torch.round(w * scale).clamp(-levels, levels) / (scale + 1e-6)
    gate = ((w > -2) & (w < 2)).to(w.dtype)
    return straight_through(w * gate, value).reshape(weight.shape)


def fake_quantize(name, weight, group_size, **options):
    """The naive formula of a format by its name."""
    formula = {"int": integer, "nf": normal_float, "sym": symmetric}[name.rstrip("0123456789")]
    return formula(weight, int(name.lstrip("abcdefghijklmnopqrstuvwxyz")), group_size, **options)


def codes_of_group(group, bits):
    """Codes, scale and zero point of one group (a list of Python floats), without tensors."""
    levels = 2**bits - 1
    high, low = max(*group, 0.0), min(*group, 0.0)
    scale = max(high - low, 1e-5) / levels
    zero_point = min(max(-round(low / scale), 0), levels)
    return [min(max(round(w / scale) + zero_point, 0), levels) for w in group], scale, zero_point


def trained_grid(weight, scale, zero_point, bits, group_size, scale_dtype=None):
    """INTb on a given grid, docs/method.md 1; differentiable in weight, scale and zero point (both (out, groups)).

    At their limits autograd of clamp passes the gradient either way, as `_no_further` then sorts out.
    """
    levels, least = 2**bits - 1, 1e-5 / (2**bits - 1)
    w = weight.reshape(weight.shape[0], -1, group_size)
    s = straight_through(_no_further(scale, least, None), scale.clamp(min=least))
    if scale_dtype is not None:
        s = straight_through(s, s.to(scale_dtype).to(s.dtype))
    z = straight_through(_no_further(zero_point, 0, levels), torch.round(zero_point).clamp(0, levels))
    s, z = s.unsqueeze(-1), z.unsqueeze(-1)
    ratio = w / s
    codes = (straight_through(ratio, torch.round(ratio)) + z).clamp(0, levels)
    return ((codes - z) * s).reshape(weight.shape)


def _no_further(x, least, most):
    """`x` with a gradient that descent may not follow further below `least` or above `most`."""
    x = x * 1
    if x.requires_grad:

        def keep(gradient):
            wrong = (x < least) & (gradient > 0)
            if most is not None:
                wrong |= (x > most) & (gradient < 0)
            return gradient.masked_fill(wrong, 0)

        x.register_hook(keep)
    return x
