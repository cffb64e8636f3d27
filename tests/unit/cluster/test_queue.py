"""Jobs read from squeue, by the comment that Snakemake's plugin gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitdistiller.cluster.queue import QueuedJob, parse_jobs
from bitdistiller.cluster.queue_view import show_jobs

LINES = """\
41|RUNNING|3:02|g1|None|bitdistiller_0a1b|rule_generate_wildcards_llama_mix_00003
42|PENDING|0:00||Resources|bitdistiller_0a1b|rule_pretrain_demo_wildcards_m
43|PENDING|0:00||Dependency|bitdistiller_0a1b|rule_tabulate
44|RUNNING|1-02:00:00|c1|None|interactive|(null)
"""


def test_jobs_of_a_workflow_and_no_others() -> None:
    found = parse_jobs(LINES)
    assert found[0] == QueuedJob("41", "RUNNING", "3:02", "g1", "None", "generate", "llama_mix_00003")
    assert [(job.rule, job.wildcards) for job in found[1:]] == [("pretrain_demo", "m"), ("tabulate", "")]


def test_the_table_and_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\ncat <<'END'\n{LINES}END\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    show_jobs(as_json=False)
    printed = capsys.readouterr().out
    assert "llama_mix_00003" in printed
    assert "Resources" in printed
    assert "interactive" not in printed
    show_jobs(as_json=True)
    assert [job["id"] for job in json.loads(capsys.readouterr().out)] == ["41", "42", "43"]
