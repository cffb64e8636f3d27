"""Thin helpers: which paths, recipes and resources belong to the wildcards of a job. The logic is in bitdistiller.plan."""

import os
import re
import sys
from functools import cache
from pathlib import Path
from shlex import quote

REPOSITORY = Path(workflow.basedir).parent
sys.path.insert(0, str(REPOSITORY))

from bitdistiller.cluster.guard import load_plan
from bitdistiller.environments import BASELINES, SERVE
from bitdistiller.plan import image
from bitdistiller.recipes import as_text
from bitdistiller.resources import cluster_settings, spread_over_nodes
from bitdistiller.resources import job_resources as resources_of
from bitdistiller.stages.damage import damaged_file

plan = load_plan(workflow, config)
experiment = plan.experiment
DEPLOYED = {"conda", "apptainer"} & set(
    map(str, workflow.deployment_settings.deployment_method)
)
for kind in (BASELINES, SERVE):
    os.environ.setdefault(
        kind.variable, "python" if DEPLOYED else kind.python(REPOSITORY)
    )
CLUSTER = cluster_settings(workflow.resource_settings.default_resources or {})
DEMO_MODELS = [
    name for name, model in experiment.models.items() if model.demo is not None
]


def one_of(names):
    """A pattern of exactly these names."""
    return "|".join(sorted(map(re.escape, set(names)))) or "(?!)"


wildcard_constraints:
    model=one_of(experiment.models),
    run=one_of(experiment.runs),
    mix=one_of(experiment.mixes),
    evaluation=one_of(experiment.evaluations),
    gram=one_of(name for _, name in plan.grams),
    tokens=one_of(name for *_, name in plan.token_files),
    cache=one_of(name for *_, name in plan.caches),
    shard=r"\d{5}",


def stage_resources(stage):
    """Threads and resources of a stage as the experiment file gives them."""
    return getattr(experiment.resources, stage)


def job_resources(stage):
    """Resources of a stage's job, in the words of the cluster that the profile describes."""
    return resources_of(stage, stage_resources(stage), CLUSTER)


def train_resources():
    """Resources of a training's job, which runs on the nodes of its run."""
    one, gpus = job_resources("train"), stage_resources("train").gpu
    return spread_over_nodes(
        one, gpus, CLUSTER, lambda wildcards: plan.run(wildcards.run).nodes
    )


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
    return list(map(checked_digest, directories))


@cache
def checked_digest(directory):
    """The digest file of an output; a damaged one, but of a full-precision model, is made again with what used it."""
    damaged = workflow.is_main_process and damaged_file(Path(directory))
    if damaged and Path(directory).name != "base":
        logger.warning(f"{damaged}: damaged or missing; it is made again")
        workflow.dag.forcefiles.add(f"{directory}/digest.json")
    return f"{directory}/digest.json"


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


def evaluation_file(wildcards):
    """Local data file of an evaluation."""
    return outside(
        [plan.evaluate_recipe(wildcards.run, wildcards.evaluation).evaluation.path]
    )


def of_evaluation(function):
    """A function of a run and an evaluation as one of wildcards."""
    return lambda wildcards: function(wildcards.run, wildcards.evaluation)


def evaluate_recipe(wildcards):
    """Recipe of `evaluate`."""
    return as_text(plan.evaluate_recipe(wildcards.run, wildcards.evaluation))


def expected_metrics(wildcards=None):
    """Digests of every evaluation of the experiment."""
    return digest_of([str(plan.evaluation(*names)) for names in plan.evaluations()])


def finished_metrics(wildcards):
    """Digests of the evaluations that are there now; asking for them starts no job."""
    return [before_update(path) for path in expected_metrics() if exists(path)]
