"""Thin helpers: which paths, recipes and resources belong to the wildcards of a job. The logic is in bitdistiller.plan."""

import os
import re
import sys
from pathlib import Path
from shlex import quote

REPOSITORY = Path(workflow.basedir).parent
sys.path.insert(0, str(REPOSITORY))

from bitdistiller.environments import BASELINES
from bitdistiller.errors import InputError
from bitdistiller.plan import Plan
from bitdistiller.recipes import as_text, load_experiment


def load_plan():
    """The plan of the configured experiment; a wrong configuration ends with one line and exit code 2."""
    try:
        plan = Plan(load_experiment(config))
        if not workflow.remote_exec:
            plan.check()
        return plan
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.stderr.flush()
        os._exit(error.exit_code)


plan = load_plan()
experiment = plan.experiment
CONDA = "conda" in map(str, workflow.deployment_settings.deployment_method)
os.environ.setdefault(
    "BASELINES_PYTHON", "python" if CONDA else BASELINES.python(REPOSITORY)
)
DEMO_MODELS = [
    name for name, model in experiment.models.items() if model.demo is not None
]


wildcard_constraints:
    model="|".join(map(re.escape, experiment.models)),
    run="|".join(map(re.escape, experiment.runs)),
    mix="|".join(map(re.escape, experiment.mixes)) or "(?!)",
    evaluation="|".join(map(re.escape, experiment.evaluations)) or "(?!)",
    gram="|".join({re.escape(name) for _, name in plan.grams}) or "(?!)",
    tokens="|".join({re.escape(name) for *_, name in plan.token_files}) or "(?!)",
    cache="|".join({re.escape(name) for *_, name in plan.caches}) or "(?!)",
    shard=r"\d{5}",


def stage_resources(stage):
    """Threads and resources of a stage as the experiment file gives them."""
    return getattr(experiment.resources, stage)


def job_resources(stage):
    """Resources of a stage's job; GPUs are named only where some are wanted."""
    wanted = stage_resources(stage)
    gpus = {"gpu": wanted.gpu, "nodes": 1} if wanted.gpu else {}
    return {"mem_mb": wanted.mem_mb, "runtime": wanted.runtime} | gpus


def demo_recipe(wildcards):
    """Recipe of `pretrain-demo`."""
    return as_text(experiment.models[wildcards.model].demo)


def model_files(wildcards):
    """Files of a local model directory, so that a changed model is noticed."""
    path = experiment.models[wildcards.model].path
    return sorted(str(p) for p in path.glob("*.*") if p.is_file()) if path else []


def model_origin(wildcards):
    """Options of `fetch` for one model."""
    model = experiment.models[wildcards.model]
    if model.path:
        return f"--path {quote(str(model.path))}"
    return f"--hub {model.hub}" + (
        f" --revision {model.revision}" if model.revision else ""
    )


def outside(paths):
    """Local data files as job inputs; those that a rule of ours writes come with that rule's other outputs."""
    return [str(path) for path in paths if path and plan.results not in path.parents]


def clip_run(wildcards):
    """A run that shares the clip ranges of these wildcards."""
    return plan.clips[(wildcards.model, wildcards.clip)]


def clip_recipe(wildcards):
    """Recipe of `clip`."""
    return as_text(plan.clip_recipe(clip_run(wildcards)))


def clip_texts(wildcards):
    """Local calibration file."""
    return outside([plan.clip_recipe(clip_run(wildcards)).calibration.path])


def gram_run(wildcards):
    """A run that shares the Gram matrices of these wildcards."""
    return plan.grams[(wildcards.model, wildcards.gram)]


def mix_recipe(wildcards):
    """Recipe of `generate` and `mix`."""
    return as_text(plan.mix_recipe(wildcards.mix))


def mix_sources(wildcards):
    """Local prompt files of a mix."""
    return outside(source.path for source in plan.mix_recipe(wildcards.mix).sources)


def mix_shards(wildcards):
    """Output directories of all shards of a mix, in order."""
    return [
        str(plan.shard(wildcards.mix, i))
        for i in range(experiment.mixes[wildcards.mix].shards)
    ]


def tokens_run(wildcards):
    """A run that shares the token file of these wildcards."""
    return plan.token_files[(wildcards.model, wildcards.mix, wildcards.tokens)]


def cache_run(wildcards):
    """A run that shares the cached teacher of these wildcards."""
    return plan.caches[(wildcards.model, wildcards.mix, wildcards.cache)]


def run_clip(wildcards):
    """Clip ranges of a run: empty for a method without them."""
    return str(plan.clip(wildcards.run)) if plan.method(wildcards.run).clip else []


def digest_of(directory):
    """The digest files of one directory or of several."""
    directories = [directory] if isinstance(directory, str) else directory
    return [f"{path}/digest.json" for path in directories]


def export_source(wildcards):
    """Output directory of the stage whose weights `export` packs."""
    return str(plan.packed_weights(wildcards.run).parent)


def export_options(wildcards):
    """Where `export` finds weights and, for untrained ones, clip ranges."""
    weights, clip = plan.packed_weights(wildcards.run), untrained_clip(wildcards)
    return f"--weights {weights} --clip {clip}" if clip else f"--weights {weights}"


def untrained_clip(wildcards):
    """Clip ranges that `export` itself applies."""
    return [] if plan.method(wildcards.run).train else run_clip(wildcards)


def evaluated(wildcards):
    """Output directory of the stage that wrote the evaluated model."""
    return str(plan.evaluated_model(wildcards.run).parent)


def evaluation_file(wildcards):
    """Local data file of an evaluation."""
    return outside(
        [plan.evaluate_recipe(wildcards.run, wildcards.evaluation).evaluation.path]
    )


def evaluate_recipe(wildcards):
    """Recipe of `evaluate`."""
    return as_text(plan.evaluate_recipe(wildcards.run, wildcards.evaluation))


def expected_metrics(wildcards=None):
    """Digests of every evaluation of the experiment."""
    return [
        f"{plan.evaluation(run, name)}/digest.json" for run, name in plan.evaluations()
    ]


def finished_metrics(wildcards):
    """Digests of the evaluations that are there now; asking for them starts no job."""
    return [before_update(path) for path in expected_metrics() if exists(path)]
