"""Untrusted programs, run apart from everything: see `Sandbox`."""

from bitdistiller.evaluation.sandbox.host import Sandbox, Unavailable
from bitdistiller.evaluation.sandbox.outcome import Outcome

__all__ = ["Outcome", "Sandbox", "Unavailable"]
