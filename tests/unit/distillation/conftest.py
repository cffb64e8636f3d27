"""A mix for the tiny model."""

from pathlib import Path

import pytest
from helpers.mixes import write_mix


@pytest.fixture(scope="session")
def mix(tmp_path_factory) -> Path:
    """40 samples: 8 held out, 32 to train on, 8 steps an epoch."""
    return write_mix(tmp_path_factory.mktemp("mixes") / "mix")
