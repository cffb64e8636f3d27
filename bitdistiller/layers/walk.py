"""Finding a decoder's blocks and their linear layers in any transformers model, without knowing the architecture."""

from collections.abc import Iterator

from torch import nn

from bitdistiller.errors import InputError


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the list of the decoder blocks: the largest module list that holds linear layers.

    Lists inside the blocks (experts, for example) are smaller than the list that contains them.
    Raises InputError when there is none.
    """
    candidates = [(name, module) for name, module in model.named_modules() if _is_block_list(module)]
    if not candidates:
        raise InputError(f"model: {type(model).__name__} has no list of decoder blocks with linear layers")
    return max(candidates, key=lambda found: sum(parameter.numel() for parameter in found[1].parameters()))


def block_linears(block: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """(name inside the block, linear layer) in the order of registration."""
    return ((name, module) for name, module in block.named_modules() if isinstance(module, nn.Linear))


def quantized_linear_names(model: nn.Module) -> list[str]:
    """Full names of the layers that are quantised: every nn.Linear inside a decoder block, and no other."""
    prefix, blocks = decoder_blocks(model)
    return [f"{prefix}.{i}.{name}" for i, block in enumerate(blocks) for name, _ in block_linears(block)]


def _is_block_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) and any(True for _ in block_linears(module))
