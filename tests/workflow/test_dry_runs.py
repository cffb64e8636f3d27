"""What Snakemake plans: job counts of every experiment file, lint, one-line errors, partial tables, the rule graph."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bitdistiller.plan import Plan, budget
from bitdistiller.recipes import load_experiment

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))


def snakemake(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on our Snakefile, from `cwd`."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def job_counts(output: str) -> dict[str, int]:
    """The last `Job stats` table of a dry run."""
    table = output[output.rindex("Job stats") :]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory without results, with the repository's configuration."""
    directory = tmp_path_factory.mktemp("fresh")
    (directory / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    return directory


def test_the_demo_plans_every_stage(fresh: Path) -> None:
    done = snakemake("--dry-run", cwd=fresh)
    assert done.returncode == 0, done.stderr
    counts = job_counts(done.stdout + done.stderr)
    assert counts | {"total": 0} == {
        "pretrain_demo": 1,
        "clip": 3,
        "generate": 2,
        "mix": 1,
        "tokenize": 1,
        "train": 3,
        "export": 5,
        "evaluate": 18,
        "tabulate": 1,
        "all": 1,
        "total": 0,
    }


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_file_dry_runs(path: Path, fresh: Path) -> None:
    done = snakemake("--dry-run", "--configfile", str(path), cwd=fresh)
    assert done.returncode == 0, done.stderr
    counts = job_counts(done.stdout + done.stderr)
    assert counts.get("evaluate", 0) + counts.get("merge_evaluation", 0) >= counts["train"] >= 1
    planned = {rule: count for rule, count in counts.items() if rule not in ("all", "total")}
    assert planned == budget(Plan(load_experiment(path))).jobs


def test_shards_of_the_calibration_are_jobs_that_formats_share(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "models: {m: {demo: {}}}\n"
        "calibrations: {three: {texts: demo, shards: 3}, one: {texts: demo}}\n"
        "evaluations: {e: {kind: perplexity, dataset: demo-text}}\n"
        "runs:\n"
        "  a: {model: m, method: clip, format: int2, calibration: three}\n"
        "  b: {model: m, method: clip, format: int3, calibration: three}\n"
        "  c: {model: m, method: clip, format: int3, calibration: one}\n"
    )
    done = snakemake("--dry-run", "--printshellcmds", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = job_counts(done.stdout + done.stderr)
    assert (counts["gram"], counts["clip"]) == (3, 3)
    commands = [line for line in (done.stdout + done.stderr).splitlines() if "bitdistiller clip" in line]
    merges = [line for line in commands if "--output results/m/clip/three-" in line]
    shards = "".join(f" --grams results/m/grams/three-g128/shards/{shard:05d}" for shard in range(3))
    assert len(merges) == 2
    assert all(shards in line for line in merges)
    assert sum("--shard" in line and "--num-shards 3" in line for line in commands) == 3
    assert "--grams" not in next(line for line in commands if "--output results/m/clip/one-" in line)


def test_tables_start_nothing(fresh: Path) -> None:
    done = snakemake("--dry-run", "tables", cwd=fresh)
    assert done.returncode == 0, done.stderr
    assert job_counts(done.stdout + done.stderr) == {"tables": 1, "total": 1}


def test_the_workflow_has_no_lint() -> None:
    done = snakemake("--lint")
    assert done.returncode == 0
    assert "in a good condition" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "models: {m: {demo: {hiden_size: 1}}}\nruns: {r: {model: m, method: 16-bit}}",
            "models.m.demo.hiden_size: unknown",
        ),
        ("models: {m: {path: /nowhere}}\nruns: {r: {model: m, method: 16-bit}}", "/nowhere is not a model directory"),
        (
            "models: {m: {demo: {}}}\nmixes: {x: {teacher: m, sources: [{dataset: alpacca, samples: 1}]}}\n"
            "runs: {r: {model: m, method: 16-bit}}",
            "mixes.x.sources.0.dataset: input should be",
        ),
        (
            "models: {m: {demo: {}}}\nmixes: {x: {teacher: m, sources: [{dataset: alpaca, samples: 0}]}}\n"
            "runs: {r: {model: m, method: 16-bit}}",
            "mixes.x.sources.0.samples: input should be greater than 0, not 0",
        ),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_code_2(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    done = snakemake("--dry-run", cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr


CACHED = """
models: {m: {demo: {}}, big: {demo: {hidden_size: 256}}}
calibrations: {c: {texts: demo}}
mixes: {x: {teacher: big, shards: 1, sources: [{dataset: demo-text, samples: 10}]}}
trainings:
  cached: {teacher: cached, max_length: 64, cache: {kind: topk, k: 8, shards: 2}}
  live: {max_length: 64}
evaluations: {e: {kind: perplexity, dataset: demo-text}}
runs:
  a: &run {model: m, teacher: big, method: bitdistiller, format: int2, calibration: c, mix: x, training: cached}
  b: {<<: *run, format: int3}
  c: {<<: *run, training: live, nodes: 2}
"""


def test_runs_share_the_token_file_and_the_cached_teacher(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CACHED)
    done = snakemake("--dry-run", "--printshellcmds", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    counts = job_counts(output)
    assert (counts["tokenize"], counts["cache_teacher"], counts["train"]) == (1, 2, 3)
    (tokenize,) = (line for line in output.splitlines() if "bitdistiller tokenize" in line)
    assert "--model results/m/base/model --mix results/big/mixes/x/mix" in tokenize
    assert "--output results/big/mixes/x/tokens-64-m " in tokenize
    shards = [f"results/big/mixes/x/teacher-top8-64-m-2shards/shards/0000{n}" for n in range(2)]
    caches = [line for line in output.splitlines() if "bitdistiller cache-teacher" in line]
    assert all("--model results/big/base/model --tokens results/big/mixes/x/tokens-64-m " in line for line in caches)
    assert sorted(shard for line in caches for shard in shards if f"--output {shard} " in line) == shards
    trains = [line for line in output.splitlines() if "bitdistiller train" in line]
    assert all("--tokens results/big/mixes/x/tokens-64-m " in line for line in trains)
    assert all("--teacher results/big/base/model" in line for line in trains)
    given = " ".join(f"--cache {shard}" for shard in shards)
    assert sorted(given in line for line in trains) == [False, True, True]
    assert sorted("--nodes 2 " in line for line in trains) == [False, False, True]


def test_the_rule_graph_in_the_readme_is_current() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    import embed

    assert embed.RULE_GRAPH.read_text() == embed.rule_graph()
    assert embed.RULE_GRAPH.read_text() in (ROOT / "README.md").read_text()


def served_demo() -> dict[str, Any]:
    """The demo with completions by vLLM."""
    demo = yaml.safe_load((ROOT / "config.yaml").read_text())
    for mix in demo["mixes"].values():
        mix.setdefault("generation", {})["engine"] = "vllm"
    return demo


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (
            yaml.safe_load((ROOT / "experiments/demo-baselines.yaml").read_text()),
            "the baselines' environment; run `make baselines` once",
        ),
        (served_demo(), "generation.engine: vllm needs the serving environment; run `make env-serve` once"),
    ],
    ids=["baselines", "serve"],
)
def test_work_without_its_environment_ends_before_the_first_job(
    experiment: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bitdistiller", "rules", "envs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(experiment))
    for variable in ("BASELINES_PYTHON", "SERVE_PYTHON"):
        monkeypatch.delenv(variable, raising=False)
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list((tmp_path / ".snakemake").glob("locks/*"))
    assert not list((tmp_path / "results").glob("[!.]*"))


@pytest.mark.parametrize("name", ["demo-baselines", "demo-methods", "demo-modern"])
def test_the_demo_beside_others_is_the_demo(name: str) -> None:
    """What both have is the same, so that results are shared."""
    places = ("config.yaml", f"experiments/{name}.yaml")
    demo, beside = (load_experiment(ROOT / place).model_dump() for place in places)
    for section in ("models", "calibrations", "mixes", "evaluations"):
        assert beside[section] == demo[section]
    for section in ("trainings", "runs"):
        common = demo[section].keys() & beside[section].keys()
        assert {"int2"} <= common
        assert all(beside[section][key] == demo[section][key] for key in common)
    assert name == "demo-modern" or demo["runs"].keys() <= beside["runs"].keys()


def test_layouts_of_a_run_are_jobs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "models: {m: {demo: {}}}\n"
        "evaluations: {e: {kind: perplexity, dataset: demo-text}}\n"
        "runs: {a: {model: m, method: rtn, format: int2, layouts: [gptq-v2, gguf-q4_1]}}\n"
    )
    done = snakemake("--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert job_counts(done.stdout + done.stderr)["convert"] == 2


def test_shards_of_an_evaluation_are_jobs_and_one_puts_them_together(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "models: {m: {demo: {}}}\n"
        "evaluations:\n"
        "  e: {kind: perplexity, dataset: demo-text, shards: 3}\n"
        "  f: {kind: perplexity, dataset: demo-text}\n"
        "runs: {a: {model: m, method: 16-bit}}\n"
    )
    done = snakemake("--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = job_counts(done.stdout + done.stderr)
    assert (counts["evaluate_shard"], counts["merge_evaluation"], counts["evaluate"]) == (3, 1, 1)
