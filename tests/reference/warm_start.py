"""Block-wise reconstruction of a Llama as one reads it: everything in memory, nothing shared with the package."""

import copy
import math

import torch
from reference.formats import trained_grid
from torch.func import functional_call


def call(model, block, hidden):
    """A decoder block as the model calls it for whole causal sequences."""
    positions = torch.arange(hidden.shape[1])[None]
    output = block(hidden, position_ids=positions, position_embeddings=model.model.rotary_emb(hidden, positions))
    return output[0] if isinstance(output, tuple) else output


def quantised(block, grids, bits, group_size, scale_dtype):
    """The block's tensors with every linear's weight on its grid."""
    tensors = dict(block.named_parameters())
    for name, (scale, zero_point) in grids.items():
        weight = tensors[f"{name}.weight"]
        tensors[f"{name}.weight"] = trained_grid(weight, scale, zero_point, bits, group_size, scale_dtype)
    return tensors


def warm_start(model, rows, start, *, batch_size, epochs, rates, bits, group_size, scale_dtype=None, seed=42):
    """
    Final parameters by full name, and (relative error before, after) of every block.

    start: (scale, zero point) by the full name of a layer; rates: learning rates of weights, scales, zero points.
    """
    full = ours = model.model.embed_tokens(rows).detach()
    found, errors = {}, []
    for index, original in enumerate(model.model.layers):
        block = copy.deepcopy(original)
        target = call(model, original, full).detach()
        names = [name for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)]
        grids = {name: start[f"model.layers.{index}.{name}"] for name in names}
        grids = {name: tuple(x.clone().requires_grad_() for x in grid) for name, grid in grids.items()}
        groups = [list(block.parameters()), [s for s, _ in grids.values()], [z for _, z in grids.values()]]
        optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate} for group, rate in zip(groups, rates, strict=True)],
            betas=(0.9, 0.99),
            weight_decay=0.0,
        )
        steps, order = epochs * (len(rows) // batch_size), torch.Generator().manual_seed(seed + index)

        def output(x, block=block, grids=grids):
            tensors = quantised(block, grids, bits, group_size, scale_dtype)
            return functional_call(_Called(model, block), {f"block.{k}": v for k, v in tensors.items()}, (x,))

        energy = target.double().square().mean()
        before = (output(ours) - target).double().square().mean() / energy
        step = 0
        for _ in range(epochs):
            for number in torch.randperm(len(rows) // batch_size, generator=order).tolist():
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
                chosen = slice(number * batch_size, (number + 1) * batch_size)
                loss = (output(ours[chosen]) - target[chosen]).square().mean() / energy.float()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([p for group in groups for p in group], 1.0)
                optimizer.step()
                step += 1
        ours, full = output(ours).detach(), target
        errors.append((before.item(), ((ours - target).double().square().mean() / energy).item()))
        found |= {f"model.layers.{index}.{name}": tensor.detach() for name, tensor in block.named_parameters()}
        for name, (scale, zero_point) in grids.items():
            found[f"model.layers.{index}.{name}.scale"] = scale.detach()
            found[f"model.layers.{index}.{name}.zero_point"] = zero_point.detach()
    return found, errors


class _Called(torch.nn.Module):
    def __init__(self, model, block):
        super().__init__()
        self.block, self.model = block, [model]

    def forward(self, hidden):
        return call(self.model[0], self.block, hidden)
