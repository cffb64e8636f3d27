"""Steps that must not be taken, and when to give a run up."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from bitdistiller.errors import Diverged

REMEDY = "try a lower learning_rate, a warmup, a lower max_gradient_norm or precision: float32"


@dataclass
class Divergence:
    """
    Counts steps whose loss or gradient norm is not finite: they are skipped, and `patience` in a row end the run.

    All processes must observe the same (reduced) numbers, so that they skip the same steps.
    """

    patience: int
    skipped: int = 0
    """Steps skipped since the start of the run, over all attempts."""
    in_a_row: int = 0
    finite_step: int | None = None
    """The last step that was finite."""
    finite_loss: float | None = None

    def observe(self, loss: float, gradient_norm: float, step: int, learning_rate: float = math.nan) -> bool:
        """
        True when the update of this step must be skipped.

        step: the optimizer step, counted as the history counts it. Raises Diverged at the last step of `patience`.
        """
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self.in_a_row, self.finite_step, self.finite_loss = 0, step, loss
            return False
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= self.patience:
            raise Diverged(self._message(loss, gradient_norm, step, learning_rate))
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, without the patience, which is the recipe's."""
        return {name: value for name, value in asdict(self).items() if name != "patience"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from a checkpoint."""
        for name in self.state_dict():
            setattr(self, name, state[name])

    def _message(self, loss: float, gradient_norm: float, step: int, learning_rate: float) -> str:
        last = "no step was finite"
        if self.finite_step is not None:
            last = f"the last finite loss was {self.finite_loss:.4g} at step {self.finite_step}"
        rate = "" if math.isnan(learning_rate) else f", learning rate {learning_rate:.3g}"
        steps = "1 step" if self.in_a_row == 1 else f"{self.in_a_row} steps in a row"
        return (
            f"train: diverged at step {step}: loss or gradient not finite for {steps} "
            f"(loss {loss:.4g}, gradient norm {gradient_norm:.4g}{rate}); {last}; {REMEDY}"
        )
