"""The vLLM engine by itself: seeds, groups, copies, limits."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import environment
from helpers.serving import ENDS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def cases(serve_python: str, ending_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What helpers/vllm_cases.py found in the serving environment."""
    out = tmp_path_factory.mktemp("cases") / "cases.json"
    command = [serve_python, str(ROOT / "tests" / "helpers" / "vllm_cases.py"), str(ending_model), str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


def test_a_seed_alone_fixes_a_completion(cases: dict[str, Any]) -> None:
    assert cases["again"] == cases["whole"]
    assert cases["one by one"] == cases["whole"]
    assert cases["other seeds"] != cases["whole"]


def test_copies_answer_in_order(cases: dict[str, Any]) -> None:
    assert cases["two copies"] == cases["whole"]


def test_completions_end_before_the_end_of_sequence_token(cases: dict[str, Any]) -> None:
    reasons = {completion["finish_reason"] for completion in cases["whole"]}
    assert reasons == {"eos", "length"}
    for completion in cases["whole"]:
        assert not set(completion["token_ids"]) & set(ENDS)
        assert (len(completion["token_ids"]) == 24) == (completion["finish_reason"] == "length")


def test_sequences_that_do_not_fit_are_refused(cases: dict[str, Any]) -> None:
    assert cases["context"] == 64
    assert "memory is left for sequences of 60 tokens, and a prompt with max_new_tokens needs 64" in cases["refused"]
    assert "leaves no room in a context of 64" in cases["no room"]
