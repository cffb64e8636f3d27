"""The tokens of the tiny model's mix."""

from pathlib import Path

import pytest
from helpers.mixes import tokenize_mix


@pytest.fixture(scope="session")
def tokens(tiny_model, tmp_path_factory) -> Path:
    """Output directory of `tokenize`: 40 samples of at most 32 tokens; 8 held out, 8 steps of 4 an epoch."""
    return tokenize_mix(tmp_path_factory.mktemp("tokens") / "tokens", tiny_model)
