"""Block-wise reconstruction: every quantised block learns to reproduce the full-precision one before distillation."""

from bitdistiller.distillation.warm_start.files import apply_warm_start

__all__ = ["apply_warm_start"]
