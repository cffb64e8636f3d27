"""Prompts, calibration texts, mixing and tokenising."""

from bitdistiller.data.rows import load_rows

__all__ = ["load_rows"]
