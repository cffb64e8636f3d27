"""Language models in 2 and 3 bits."""

from typing import Any

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from bitdistiller.export.load import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
