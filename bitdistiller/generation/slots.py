"""Keys and values of the running sequences: one buffer of fixed size per layer, one row per sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicCache, DynamicLayer


class Slots:
    """
    What the layers of a cache share: which rows and columns of their buffers a forward pass writes and reads.

    The buffers are (rows, key-value heads, width, head dimension); token i of a sequence is in column i of its row, and
    the running sequences are rows 0 to n - 1.
    """

    def __init__(self, model: Any, rows: int, width: int) -> None:
        self.rows, self.width = rows, width
        self.layers = [SlotLayer(self) for _ in range(len(DynamicCache(config=model.config).layers))]
        self.cache = Cache(layers=self.layers)
        self.prefill(0, 0)

    def prefill(self, first: int, count: int) -> None:
        """The next forward pass brings new sequences from their first token on, for rows `first` and behind."""
        self.new, self.positions, self.used = slice(first, first + count), None, 0

    def decode(self, positions: torch.Tensor, used: int) -> None:
        """The next forward pass brings token `positions[i]` (n,) to row i; all lie in the first `used` columns."""
        self.positions, self.used = positions, used
        self.targets: torch.Tensor | None = None

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copy the first `length` tokens of some rows to others."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                for source, target in zip(sources, targets, strict=True):
                    buffer[target, :, :length] = buffer[source, :, :length]


class SlotLayer(DynamicLayer):
    """One layer's buffers."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Zeros, as what is masked is multiplied by 0 and must be finite."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            states.new_zeros(self.slots.rows, states.shape[1], self.slots.width, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states (n, heads, tokens, dimension); returns what their queries may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        slots = self.slots
        if slots.positions is None:
            self.keys[slots.new, :, : key_states.shape[2]] = key_states
            self.values[slots.new, :, : value_states.shape[2]] = value_states
            return key_states, value_states
        count = key_states.shape[0]
        if slots.targets is None:
            slots.targets = self._targets(slots.positions)
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            buffer.view(-1, buffer.shape[3]).index_copy_(0, slots.targets, states.reshape(-1, states.shape[3]))
        return self.keys[:count, :, : slots.used], self.values[:count, :, : slots.used]

    def _targets(self, positions: torch.Tensor) -> torch.Tensor:
        """Where the new token of each row and head lies among all (row, head, column)."""
        heads, width = self.keys.shape[1], self.keys.shape[2]
        first = torch.arange(len(positions) * heads, device=positions.device) * width
        return first + positions.repeat_interleave(heads)

    def get_seq_length(self) -> int:
        """Tokens before those of this forward pass."""
        return max(self.slots.used - 1, 0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the queries see, from column 0 on."""
        return self.slots.used or query_length, 0
