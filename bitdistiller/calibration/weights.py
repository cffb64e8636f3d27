"""A model's weights, read from its files when a block's turn comes and dropped after it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from bitdistiller.errors import InputError
from bitdistiller.layers import TensorFiles, decoder_blocks

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


class ModelWeights:
    """The network of a model, and its weights one part at a time; the network itself is never changed.

    Parts are copies in float32 for `torch.func.functional_call`. With `files`, the parameters of `network` may be on
    the meta device: they are read from the files, rounded to `dtype` where one is given.
    """

    def __init__(self, network: nn.Module, files: TensorFiles | None = None, dtype: torch.dtype | None = None) -> None:
        self.network = network.eval()
        self.name, self.blocks = decoder_blocks(network)
        self._files, self._dtype = files, dtype
        self._own = dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers())

    def tensor(self, name: str) -> Tensor:
        """One parameter or buffer by its full name, on the host and in the model's precision."""
        stored = self._stored_name(name)
        if stored is None:
            return self._own[name].detach()
        tensor = self._files.read(stored)
        return tensor.to(self._dtype or tensor.dtype, copy=True) if tensor.is_floating_point() else tensor.clone()

    def block(self, index: int, device: torch.device | str) -> Tensors:
        """Everything that block `index` holds, by names inside the block, on `device`."""
        prefix = f"{self.name}.{index}."
        return {name.removeprefix(prefix): self._loaded(name, device) for name in self._names(prefix)}

    def around(self, device: torch.device | str, head: bool) -> Tensors:
        """What lies outside the blocks, on `device`: all but the head, or with `head` all but the input embeddings."""
        unused = self.network.get_input_embeddings() if head else self.network.get_output_embeddings()
        left_out = {name for name, module in self.network.named_modules() if module is unused}
        inside = f"{self.name}."
        names = [name for name in self._own if not name.startswith(inside)]
        return {name: self._loaded(name, device) for name in names if name.rpartition(".")[0] not in left_out}

    def release(self) -> None:
        """Let go of the file read last; its mapped pages would count as memory of this process."""
        if self._files is not None:
            self._files.close()

    def _names(self, prefix: str) -> list[str]:
        return [name for name in self._own if name.startswith(prefix)]

    def _stored_name(self, name: str) -> str | None:
        """The name of a tensor in the files (of a tied one, its twin's); None for one that the network holds."""
        if self._files is None or not self._own[name].is_meta:
            return None
        return name if name in self._files else self.network.all_tied_weights_keys.get(name, name)

    def _loaded(self, name: str, device: torch.device | str) -> Tensor:
        tensor = self.tensor(name)
        return tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)


def open_weights(directory: Path) -> ModelWeights:
    """The weights of a Hugging Face directory, to be read block by block.

    A model whose tensors have other names or shapes in the files than in the network (transformers renames or merges
    those of some architectures), or that is not stored as safetensors, is loaded whole; the log says so.
    """
    config = AutoConfig.from_pretrained(directory)
    dtype = config.dtype
    with init_empty_weights(include_buffers=False):
        network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    try:
        files = TensorFiles(directory)
        reason = _difference(network, files)
    except InputError as error:
        reason = str(error)
    if reason is None:
        return ModelWeights(network, files, dtype)
    logger.warning("the whole model is loaded, not block by block: %s", reason)
    return ModelWeights(AutoModelForCausalLM.from_pretrained(directory, dtype="auto"))


def _difference(network: nn.Module, files: TensorFiles) -> str | None:
    """Why the network cannot take its tensors from the files as they are; None if it can."""
    if getattr(network.config, "quantization_config", None) is not None:
        return "its config.json has a quantization_config"
    if network._keep_in_fp32_modules or network._keep_in_fp32_modules_strict:
        return f"{type(network).__name__} keeps some modules in float32"
    tied = network.all_tied_weights_keys
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(wanted):
        if name not in files and tied.get(name) not in files:
            return f"its files have no tensor {name}"
    for name in files.names:
        if name in wanted and files.shape(name) != wanted[name]:
            return f"tensor {name} has shape {files.shape(name)} in its files, {wanted[name]} in the network"
    files.close()
    return None
