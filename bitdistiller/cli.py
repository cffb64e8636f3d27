"""The command line: one command per stage, nothing but argument parsing."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bitdistiller import config
from bitdistiller.arguments import (
    Budget,
    Changes,
    Config,
    FormatOption,
    GroupSize,
    ModelDirectory,
    Output,
    Recipe,
    Walltime,
    Work,
    budget,
    changed,
    experiment_of,
    given_path,
)
from bitdistiller.cluster.commands import commands as cluster
from bitdistiller.errors import BitDistillerError, InputError
from bitdistiller.evaluation.commands import commands as measuring
from bitdistiller.export.commands import commands as packing
from bitdistiller.recipes import load_experiment, load_recipe
from bitdistiller.reporting.commands import commands as reporting

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Language models in 2 and 3 bits: clip search, self-distillation, packing, evaluation, tables. "
    "Every stage can be killed at any moment; the same command goes on where it was.",
)

for room in (packing, measuring, reporting, cluster):
    app.add_typer(room)


@app.command()
def fetch(
    output: Output,
    hub: Annotated[str | None, typer.Option(help="Hub id, organisation/name.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit or tag of the hub model.")] = None,
    path: Annotated[Path | None, typer.Option(help="Local model directory instead of the hub.")] = None,
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Download a model from the hub, or link a local one; check and hash it once."""
    from bitdistiller.data.fetch import run

    recipe = load_recipe(config.Model, None, changed([], hub=hub, revision=revision, path=path))
    run(recipe, output=output, work=work, time_budget=budget(time_budget, walltime))


@app.command()
def pretrain_demo(
    output: Output,
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Generate the demo corpus and train the demo teacher on it."""
    options = load_recipe(config.DemoTeacherRecipe, recipe, changes)
    from bitdistiller.demo.stage import run

    run(options, output=output, work=work, time_budget=budget(time_budget, walltime))


@app.command()
def clip(
    model: ModelDirectory,
    output: Output,
    format: FormatOption = None,
    group_size: GroupSize = None,
    texts: Annotated[config.CalibrationDataset | None, typer.Option(help="Calibration texts.")] = None,
    path: Annotated[Path | None, typer.Option(help="Local file of calibration texts.")] = None,
    shard: Annotated[int | None, typer.Option(help="Take only the Grams of this shard, from 0.")] = None,
    num_shards: Annotated[int, typer.Option(help="Shards the calibration sequences are divided over.")] = 1,
    grams: Annotated[list[Path], typer.Option(help="Output directory of a shard; repeatable, give all of them.")] = [],  # noqa: B006
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Search asymmetric clip ranges, block by block; or take the Gram matrices of one shard of the texts."""
    calibration = {"calibration__texts": texts, "calibration__path": path}
    common = {"model": model, "output": output, "work": work, "time_budget": budget(time_budget, walltime)}
    if shard is None:
        given = changed(changes, quantization__format=format, quantization__group_size=group_size, **calibration)
        _clip(load_recipe(config.ClipRecipe, recipe, given), grams=grams, **common)
    elif format or grams:
        raise InputError(f"--shard: Grams do not depend on {'--format' if format else '--grams'}; leave it out")
    else:
        options = load_recipe(config.GramRecipe, recipe, changed(changes, group_size=group_size, **calibration))
        _shard(options, shard=shard, shards=num_shards, **common)


def _clip(options: config.ClipRecipe, **common: Any) -> None:
    from bitdistiller.calibration.stage import run
    from bitdistiller.data.calibration_texts import calibration_texts

    run(options, texts=partial(calibration_texts, options.calibration), **common)


def _shard(options: config.GramRecipe, **common: Any) -> None:
    from bitdistiller.calibration.shards import run_shard
    from bitdistiller.data.calibration_texts import calibration_texts

    run_shard(options, texts=partial(calibration_texts, options.calibration), **common)


@app.command()
def baseline(
    model: ModelDirectory,
    output: Output,
    method: Annotated[str | None, typer.Option(help="gptq, awq or autoround.")] = None,
    format: FormatOption = None,
    group_size: GroupSize = None,
    texts: Annotated[config.CalibrationDataset | None, typer.Option(help="Calibration texts.")] = None,
    path: Annotated[Path | None, typer.Option(help="Local file of calibration texts.")] = None,
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Let a quantisation library choose the weights; needs the environment `.venv-baselines`."""
    given = changed(
        changes,
        method=method,
        quantization__format=format,
        quantization__group_size=group_size,
        calibration__texts=texts,
        calibration__path=path,
    )
    options = load_recipe(config.BaselineRecipe, recipe, given)
    from bitdistiller.baselines.stage import run
    from bitdistiller.data.calibration_texts import calibration_texts

    texts = partial(calibration_texts, options.calibration)
    run(options, model=model, texts=texts, output=output, work=work, time_budget=budget(time_budget, walltime))


@app.command()
def generate(
    model: ModelDirectory,
    output: Output,
    shard: Annotated[int, typer.Option(help="Number of this shard, from 0.")] = 0,
    num_shards: Annotated[int, typer.Option(help="Shards the prompts are dealt to.")] = 1,
    dtype: Annotated[config.Dtype, typer.Option(help="Precision of the model.")] = "bfloat16",
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Let the full-precision model complete the prompts of one shard."""
    options = load_recipe(config.Mix, recipe, changed(changes, teacher="model"))
    from bitdistiller.generation.serving import enter

    enter(options.generation.engine)
    from bitdistiller.generation.stage import run

    minutes = budget(time_budget, walltime)
    run(
        options, model=model, dtype=dtype, shard=shard, shards=num_shards, output=output, work=work, time_budget=minutes
    )


@app.command()
def mix(
    output: Output,
    shard: Annotated[list[Path], typer.Option(help="Output directory of a shard; repeatable, give all of them.")] = [],  # noqa: B006
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Merge the shards: exact counts, no duplicates, shuffled."""
    options = load_recipe(config.Mix, recipe, changes)
    from bitdistiller.data.stage import run

    run(options, shards=shard, output=output, work=work, time_budget=budget(time_budget, walltime))


@app.command()
def tokenize(
    model: ModelDirectory,
    mix: Annotated[Path, typer.Option(help="Output directory of the stage mix.")],
    output: Output,
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Encode a mix once, with the tokenizer of the student's model."""
    options = load_recipe(config.TokenizeRecipe, recipe, changes)
    from bitdistiller.data.tokenize_stage import run

    run(options, model=model, mix=mix, output=output, work=work, time_budget=budget(time_budget, walltime))


@app.command()
def cache_teacher(
    model: Annotated[Path, typer.Option(help="Directory of the teacher in Hugging Face layout.")],
    tokens: Annotated[Path, typer.Option(help="Output directory of the stage tokenize.")],
    output: Output,
    shard: Annotated[int, typer.Option(help="Number of this shard, from 0.")] = 0,
    num_shards: Annotated[int, typer.Option(help="Shards the samples are divided over.")] = 1,
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Run the teacher once over one shard of the samples and keep what training needs of it."""
    options = load_recipe(config.CacheRecipe, recipe, changes)
    from bitdistiller.distillation.cache.stage import run

    common = {"output": output, "work": work, "time_budget": budget(time_budget, walltime)}
    run(options, model=model, tokens=tokens, shard=shard, shards=num_shards, **common)


@app.command()
def warm_start(
    model: ModelDirectory,
    tokens: Annotated[Path, typer.Option(help="Output directory of the stage tokenize.")],
    output: Output,
    clip: Annotated[Path | None, typer.Option(help="Output directory of the stage clip, or none.")] = None,
    format: FormatOption = None,
    group_size: GroupSize = None,
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Reconstruct the quantised blocks one by one, so that distillation starts closer to the teacher."""
    given = changed(changes, quantization__format=format, quantization__group_size=group_size)
    options = load_recipe(config.WarmStartRecipe, recipe, given)
    from bitdistiller.distillation.warm_start.stage import run

    minutes = budget(time_budget, walltime)
    run(options, model=model, tokens=tokens, clip=given_path(clip), output=output, work=work, time_budget=minutes)


@app.command()
def train(
    model: ModelDirectory,
    tokens: Annotated[Path, typer.Option(help="Output directory of the stage tokenize.")],
    output: Output,
    teacher: Annotated[Path | None, typer.Option(help="Another full-precision model of the same vocabulary.")] = None,
    cache: Annotated[list[Path], typer.Option(help="Shard of cache-teacher, for teacher: cached; repeatable.")] = [],  # noqa: B006
    clip: Annotated[Path | None, typer.Option(help="Output directory of the stage clip, or none.")] = None,
    warm_start: Annotated[Path | None, typer.Option(help="Output directory of the stage warm-start.")] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="Processes to start here; by default one per GPU, and none inside torchrun or srun."),
    ] = None,
    nodes: Annotated[
        int, typer.Option(min=1, help="Nodes of this SLURM job to train on; outside of a job it trains here.")
    ] = 1,
    format: FormatOption = None,
    group_size: GroupSize = None,
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Distil the quantised student, on one process or on as many as the environment or --processes says."""
    given = changed(changes, quantization__format=format, quantization__group_size=group_size)
    options = load_recipe(config.TrainRecipe, recipe, given)
    from bitdistiller.distillation.nodes import start
    from bitdistiller.distillation.processes import adopt_environment, follow_launcher

    if not adopt_environment():
        code = start(processes, options.training.engine, nodes)
        if code is not None:
            sys.exit(code)
    follow_launcher()
    from bitdistiller.distillation.inputs import Inputs
    from bitdistiller.distillation.stage import run

    inputs = Inputs(model, teacher or model, tokens, tuple(cache), given_path(clip), warm_start)
    run(options, inputs, output=output, work=work, time_budget=budget(time_budget, walltime))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Option(help="Any model directory: full-precision, student or packed.")],
    output: Output,
    reference: Annotated[
        Path | None, typer.Option(help="Full-precision model that the kind agreement compares with.")
    ] = None,
    shard: Annotated[int | None, typer.Option(help="Do the items of this shard alone, from 0.")] = None,
    num_shards: Annotated[int, typer.Option(min=1, help="Shards the items are divided over.")] = 1,
    part: Annotated[list[Path], typer.Option(help="Output directory of a shard; repeatable, give all of them.")] = [],  # noqa: B006
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Run one evaluation, one shard of it, or put its shards together: predictions first, metrics second."""
    options = load_recipe(config.EvaluateRecipe, recipe, changes)
    common = {"model": model, "reference": reference, "output": output, "work": work}
    minutes = budget(time_budget, walltime)
    if not part:
        from bitdistiller.evaluation.writing import enter

        enter(options.evaluation, model)
    from bitdistiller.evaluation.stage import run, run_shard

    if shard is None:
        run(options, parts=part, time_budget=minutes, **common)
    elif part:
        raise InputError("--part: a shard has no parts; leave out --shard to put them together")
    else:
        run_shard(options, shard=shard, shards=num_shards, time_budget=minutes, **common)


@app.command()
def tabulate(
    output: Output,
    config: Config = Path("config.yaml"),
    recipe: Recipe = None,
    results: Annotated[Path, typer.Option(help="Root of all results.")] = Path("results"),
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Write tables and plots from whatever runs are finished."""
    from bitdistiller.reporting.stage import run

    experiment = experiment_of(config, recipe)
    run(experiment, results=results, output=output, work=work, time_budget=budget(time_budget, walltime))


@app.command()
def show(
    config: Config = Path("config.yaml"),
    results: Annotated[Path, typer.Option(help="Root of all results.")] = Path("results"),
) -> None:
    """Print the results table in the terminal, and where table, plots and report are."""
    from bitdistiller.reporting.terminal import show_results

    show_results(load_experiment(config), results)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Model, student/, packed checkpoint, or output directory of clip.")],
    clip: Annotated[Path | None, typer.Option(help="Output directory of clip, for untrained weights.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Full-precision model that errors are relative to.")] = None,
    format: FormatOption = None,
    group_size: GroupSize = None,
    scale_dtype: Annotated[config.Dtype | None, typer.Option(help="Precision of the scales.")] = None,
    pad: Annotated[bool, typer.Option("--pad", help="Fill up a last group that is not full.")] = False,
    layers: Annotated[str | None, typer.Option(help="Part of the layers' names, or a pattern with * and ?.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the clip ratios into this .svg or .png file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all columns to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Show weights, clip ratios, errors and bits of every layer; the format is the recorded one, else int2 g128."""
    from bitdistiller.inspection.inspect import inspect
    from bitdistiller.inspection.sources import Options

    asked = {"format": format, "group_size": group_size, "scale_dtype": scale_dtype, "pad": pad or None}
    given = {key: value for key, value in asked.items() if value is not None}
    inspect(path, Options(given, clip, reference), layers=layers, plot=plot, csv=csv, as_machine=as_json)


@app.command()
def check(config: Config = Path("config.yaml")) -> None:
    """Check an experiment file and the local files it names, before any job starts."""
    from bitdistiller.plan import Plan, budget

    plan = Plan(load_experiment(config))
    plan.check()
    runs, jobs = len(plan.experiment.runs), len(list(plan.evaluations()))
    typer.echo(f"{config}: {runs} runs, {jobs} evaluations, all local files are there")
    typer.echo(f"{config}: {budget(plan).describe()}")
    needed = plan.missing_environment(Path())
    if needed:
        typer.echo(f"{config}: {needed}")


@app.command()
def options(stage: Annotated[str, typer.Argument(help="clip, generate, mix, train, export, evaluate, ...")]) -> None:
    """List the options of a stage: meaning, unit and default."""
    from bitdistiller.options import RECIPES, describe

    if stage not in RECIPES:
        raise InputError(f"no stage {stage!r} with options; accepted: {', '.join(RECIPES)}")
    typer.echo(describe(RECIPES[stage]))


@app.command()
def schema(
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("workflow/schemas/config.schema.json"),
) -> None:
    """Write the JSON schema of experiment files from the configuration classes."""
    from bitdistiller.options import experiment_schema
    from bitdistiller.stages.files import write_json

    write_json(output, experiment_schema())


def _quiet_libraries() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Waiting threads give their core away: with the default, two jobs on one machine were 30 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    for name in ("httpx", "lm_eval", "datasets", "matplotlib", "fontTools"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # transformers imports these extras by itself; they warn of GPUs that are not there and of their own use of torch.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")


def main() -> None:
    """Run a command; errors meant for the user become one line and their exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    _quiet_libraries()
    try:
        app(prog_name="bitdistiller")
    except BitDistillerError as error:
        if not error.said:
            sys.stderr.write(f"{'stopped' if error.exit_code == 75 else 'error'}: {error}\n")
        sys.exit(error.exit_code)
