"""What an experiment takes: jobs are compared with Snakemake's own plan in tests/workflow/test_dry_runs.py."""

from pathlib import Path

import pytest

from bitdistiller.config import Experiment, Model
from bitdistiller.plan import Plan, budget
from bitdistiller.plan.budget import parameters
from bitdistiller.recipes import load_experiment

ROOT = Path(__file__).resolve().parents[2]


def small(**changes):
    training = {"max_steps": 2, "keep_checkpoints": 2, **changes.pop("training", {})}
    content = {
        "models": {"m": {"hub": "someone/Model-2B"}},
        "mixes": {"x": {"teacher": "m", "sources": [{"dataset": "wikitext", "samples": 8}], "shards": 3}},
        "trainings": {"t": training},
        "evaluations": {"e": {"kind": "perplexity", "dataset": "wikitext2"}},
        "runs": {
            "full": {"model": "m", "method": "16-bit"},
            "one": {"model": "m", "method": "onebit", "mix": "x", "training": "t", **changes.pop("run", {})},
        },
        "resources": {"generate": {"gpu": 1, "runtime": 30}, "train": {"gpu": 8, "runtime": 120}},
    }
    return Plan(Experiment.model_validate(content | changes))


def test_jobs_hours_and_disk():
    found = budget(small())
    assert found.jobs == {
        **{"fetch": 1, "generate": 3, "mix": 1, "tokenize": 1, "train": 1, "export": 1, "evaluate": 2, "tabulate": 1}
    }
    assert found.gpu_hours == pytest.approx(3 * 0.5 + 8 * 2)
    weights = 2e9
    assert found.disk_bytes == pytest.approx(weights * (2 + 2 * (4 + 8) + 4 + 4 + 1.3 / 8))
    assert found.describe() == "11 jobs, at most 18 GPU-hours by their walltimes, about 68 GB on disk for weights"


def test_nodes_count():
    assert budget(small(run={"nodes": 2})).gpu_hours == pytest.approx(3 * 0.5 + 2 * 8 * 2)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"hub": "meta-llama/Llama-2-13b-hf"}, 13e9),
        ({"hub": "TinyLlama/TinyLlama_v1.1", "title": "TinyLlama-1.1B"}, 1.1e9),
        ({"hub": "Qwen/Qwen3-8B"}, 8e9),
        ({"hub": "someone/unnamed"}, None),
    ],
)
def test_the_size_of_a_model_by_its_name(model, expected):
    assert parameters(Model(**model)) == expected


def test_the_demo_has_a_size_and_no_gpu():
    found = budget(Plan(load_experiment(ROOT / "config.yaml")))
    assert found.unknown == ()
    assert "no GPU" in found.describe()
    assert parameters(Model(demo={})) == pytest.approx(983_040, rel=0.2)


def test_a_model_of_unknown_size_is_named():
    plan = small(models={"m": {"hub": "someone/unnamed"}})
    assert budget(plan).describe().endswith("on disk for weights, without m")
