"""GPTQ, AWQ and AutoRound on a real model, each through the stages as the workflow starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bitdistiller.environments import BASELINES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.baselines, pytest.mark.timeout(1200)]
FULL_PRECISION = 29.81
# At 2 and 3 bits, what round-to-nearest has. At 4 bits it has 32.70 with a standard error of 0.65, more than separates
# AWQ (32.94 on these 24 texts, 32.51 on all of them) from it: there the limit is 15 % above full precision.
LIMITS = {2: 865, 3: 46.9, 4: 1.15 * FULL_PRECISION}


@pytest.fixture(scope="session")
def library_python():
    """The interpreter of the libraries' environment."""
    python = BASELINES.python(ROOT)
    if python == "python":
        pytest.skip("no .venv-baselines; run `make baselines`")
    return python


def stage(python, name, *options):
    """Run one stage as the rules do."""
    command = [python, "-m", "bitdistiller", name, *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("method", ["gptq", "awq", "autoround"])
def test_a_library_beats_round_to_nearest_or_is_close_to_full_precision(
    library_python, test_data, tmp_path, method, bits
):
    model, stories = test_data / "models" / "TinyStories-656K", test_data / "datasets" / "tinystories"
    scale = ("--set", "quantization.scale_dtype=float32")
    texts = ("--texts", "text", "--path", stories / "train_sample.jsonl.gz", "--set", "calibration.samples=24")
    out = tmp_path / "baseline"
    shape = ("--format", f"int{bits}", *scale)
    stage(library_python, "baseline", "--method", method, "--model", model, *shape, *texts, "--output", out)
    assert json.loads((out / "baseline.json").read_text())["reason"] is None
    packed = tmp_path / "export"
    stage(
        sys.executable,
        "export",
        *("--weights", out / "quantised", *shape, "--set", "dtype=float32", "--output", packed, "--no-verify"),
    )
    text = {"kind": "perplexity", "dataset": "text", "path": str(stories / "valid_sample.jsonl.gz")}
    evaluation = text | {"chunk_length": 256, "max_chunks": 200, "max_documents": 500}
    recipe = json.dumps({"name": "stories", "evaluation": evaluation, "dtype": "float32"})
    result = tmp_path / "evaluation"
    stage(sys.executable, "evaluate", "--recipe", recipe, "--model", packed / "checkpoint", "--output", result)
    found = json.loads((result / "metrics.json").read_text())["metrics"]["perplexity"]["value"]
    assert FULL_PRECISION < found < LIMITS[bits]
