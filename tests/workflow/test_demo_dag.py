"""The whole demo DAG on a smaller grid, then what users do with it: again, partial tables, a lost shard, the report."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def small_config() -> dict:
    """The demo with a teacher, a mix and evaluations cut to seconds."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["models"]["demo"]["demo"] = SMALL_TEACHER
    for source in config["mixes"]["demo"]["sources"]:
        source["samples"] = 8
    config["mixes"]["demo"] |= {"allow_fewer": True, "generation": {"max_new_tokens": 8, "batch_size": 4}}
    for training in config["trainings"].values():
        training |= {"max_steps": 4, "evaluate_every": 2, "batch_size": 4, "micro_batch_size": 4}
    config["evaluations"]["text"] |= {"max_chunks": 4}
    config["evaluations"]["math"] |= {"max_items": 4, "max_new_tokens": 8}
    config["evaluations"]["code"] |= {"max_items": 4, "max_new_tokens": 8}
    config["runs"] = {name: config["runs"][name] for name in ("full", "rtn-int2", "int2", "nf3")}
    return config


SMALL_TEACHER = {"steps": 4, "hidden_size": 128, "intermediate_size": 128, "layers": 1}


class Demo:
    """A directory in which the small demo runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.results = directory / "results"

    def snakemake(self, *arguments: str) -> tuple[dict[str, int], str]:
        """Run Snakemake; returns how many jobs of each rule ran, and what was printed."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"), *arguments]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=self.directory, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=900
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-6000:]
        return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}, output

    def bytes_of(self, pattern: str) -> dict[Path, bytes]:
        """Content of the result files that match."""
        return {path: path.read_bytes() for path in sorted(self.results.glob(pattern)) if path.is_file()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The finished small demo."""
    directory = tmp_path_factory.mktemp("demo")
    (directory / "config.yaml").write_text(yaml.safe_dump(small_config()))
    demo = Demo(directory)
    counts, demo.output = demo.snakemake("--cores", "2")
    assert counts["evaluate"] == 12
    yield demo
    shutil.rmtree(directory)


def test_it_ends_with_the_table_and_its_paths(demo: Demo) -> None:
    assert "4 of 4 runs finished" in demo.output
    assert "results/tables/demo/main.html" in demo.output
    table = (demo.results / "tables" / "demo" / "main.md").read_text()
    for name in ("16-bit", "RTN", "BitDistiller", "PPL", "Arithmetic"):
        assert name in table


def test_every_output_has_a_digest_and_a_provenance(demo: Demo) -> None:
    for directory in ("base", "mixes/demo/mix", "int2/train", "int2/export", "int2/evaluation/text"):
        digest = json.loads((demo.results / "demo" / directory / "digest.json").read_text())
        provenance = json.loads((demo.results / "demo" / directory / "provenance.json").read_text())
        assert digest["files"]
        assert set(digest) == {"files", "counts"}
        assert provenance["fingerprint"]
        assert provenance["versions"]["torch"]
        assert provenance["attempts"][-1]["outcome"] == "finished"


def test_metrics_carry_their_error_and_n(demo: Demo) -> None:
    metrics = json.loads((demo.results / "demo/int2/evaluation/text/metrics.json").read_text())["metrics"]
    assert metrics["perplexity"]["n"] == 4
    assert metrics["perplexity"]["value"] > 1.0
    assert metrics["perplexity"]["standard_error"] >= 0.0


def test_the_packed_model_loads_in_plain_transformers(demo: Demo) -> None:
    from transformers import AutoModelForCausalLM

    path = demo.results / "demo/int2/export/checkpoint"
    assert json.loads((path / "config.json").read_text())["quantization_config"]["quant_method"] == "compressed-tensors"
    assert AutoModelForCausalLM.from_pretrained(path).config.num_hidden_layers == 1


def test_a_second_run_starts_no_job(demo: Demo) -> None:
    counts, output = demo.snakemake("--cores", "2")
    assert "Nothing to be done" in output
    assert not counts


def test_tables_are_rebuilt_from_what_is_finished_and_start_nothing_else(demo: Demo) -> None:
    before = demo.bytes_of("tables/demo/main.*")
    kept = demo.results / "demo/int2/evaluation/math"
    aside = demo.directory / "aside"
    kept.rename(aside)
    counts, _ = demo.snakemake("--cores", "2", "tables")
    assert counts == {"tables": 1, "total": 1}
    assert json.loads((demo.results / "tables/demo/coverage.json").read_text())
    assert "3 of 4 runs finished" in (demo.results / "tables/demo/main.md").read_text()
    aside.rename(kept)
    demo.snakemake("--cores", "2", "tables")
    assert demo.bytes_of("tables/demo/main.*") == before


def test_a_lost_shard_is_made_again_byte_for_byte_and_invalidates_nothing(demo: Demo) -> None:
    shard = demo.results / "demo/mixes/demo/shards/00001"
    before = demo.bytes_of("demo/mixes/demo/shards/00001/completions.jsonl")
    shutil.rmtree(shard)
    shutil.rmtree(demo.directory / "work/demo/mixes/demo/shards/00001")
    counts, _ = demo.snakemake("--cores", "2", "results/demo/mixes/demo/shards/00001/digest.json")
    assert counts == {"generate": 1, "total": 1}
    assert demo.bytes_of("demo/mixes/demo/shards/00001/completions.jsonl") == before
    counts, output = demo.snakemake("--cores", "2")
    assert "Nothing to be done" in output, counts


def test_the_snakemake_report_is_written(demo: Demo) -> None:
    demo.snakemake("--report", "results/report.html")
    page = (demo.results / "report.html").read_text()
    assert "perplexity" in page
