"""A dequantised copy: ordinary tensors, for engines that read no packed weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from bitdistiller.export.conversion.rewritten import Rewritten
from bitdistiller.export.conversion.unfit import require_grouped


class DenseCopy(Rewritten):
    """The tensors of a packed checkpoint of any format, its values rounded once to the dtype that it declares."""

    def __init__(self, checkpoint: Path) -> None:
        """Raises InputError for a directory without a packed checkpoint, Unfit as `require_grouped` does."""
        super().__init__(checkpoint)
        require_grouped(self.checkpoint, self.parts.layout.recipe.quantization)

    def layer(self, name: str) -> dict[str, Tensor]:
        return {"weight": self.parts.values(name).to(self.dtype)}

    def sizes(self, directory: Path) -> dict[str, Any]:
        return {"bits_per_weight": 8.0 * self.dtype.itemsize}
