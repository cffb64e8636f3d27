"""What all tests share: naive doubles and helpers on the path, no hub, the shared data, a tiny model."""

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The shared models and datasets; tests that need them are skipped where they are not."""
    path = Path(os.environ.get("BITDISTILLER_TEST_DATA", TESTS.parent.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no test data in {path}; set BITDISTILLER_TEST_DATA")
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random two-layer Llama with its own 128-token tokenizer; see helpers/tiny.py."""
    from helpers.tiny import write_model

    return write_model(tmp_path_factory.mktemp("models") / "tiny")
