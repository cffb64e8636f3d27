"""Commands for packed checkpoints: pack, and write the same values in another engine's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitdistiller import config
from bitdistiller.arguments import (
    Budget,
    Changes,
    FormatOption,
    GroupSize,
    Output,
    Recipe,
    Walltime,
    Work,
    budget,
    changed,
)
from bitdistiller.recipes import load_recipe

commands = typer.Typer()


@commands.command()
def export(
    weights: Annotated[Path, typer.Option(help="A student/, a full-precision model, or a library's quantised/.")],
    output: Output,
    clip: Annotated[
        Path | None, typer.Option(help="Output directory of the stage clip, for untrained weights.")
    ] = None,
    format: FormatOption = None,
    group_size: GroupSize = None,
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    verify: Annotated[bool, typer.Option(help="Reload in a fresh process and compare the logits.")] = True,
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Pack the weights to 2, 3 or 4 bits and check the packed file."""
    given = changed(changes, quantization__format=format, quantization__group_size=group_size)
    options = load_recipe(config.ExportRecipe, recipe, given)
    from bitdistiller.export.stage import run

    minutes = budget(time_budget, walltime)
    run(options, weights=weights, clip=clip, verify=verify, output=output, work=work, time_budget=minutes)


@commands.command()
def import_onebit(
    released: Annotated[Path, typer.Option(help="Packed checkpoint as OneBit's authors released it.")],
    output: Output,
    dtype: Annotated[config.Dtype, typer.Option(help="Precision of what is not packed.")] = "bfloat16",
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Write a released OneBit checkpoint (int8 signs) as a packed checkpoint that evaluate, chat and speed load."""
    from bitdistiller.export.released import run

    run(released, output=output, dtype=dtype, work=work, time_budget=budget(time_budget, walltime))


@commands.command()
def convert(
    checkpoint: Annotated[Path, typer.Option(help="Packed checkpoint/ of the stage export.")],
    output: Output,
    layout: Annotated[config.LayoutName | None, typer.Option(help="Layout of the files.")] = None,
    mark: Annotated[
        bool, typer.Option("--mark", help="Where the layout cannot hold the values, say so in the output and finish.")
    ] = False,
    recipe: Recipe = None,
    changes: Changes = [],  # noqa: B006
    work: Work = None,
    time_budget: Budget = None,
    walltime: Walltime = None,
) -> None:
    """Write a packed checkpoint in the files of another engine, if they hold the same values, and check them."""
    options = load_recipe(config.ConvertRecipe, recipe, changed(changes, layout=layout))
    from bitdistiller.export.conversion.stage import run

    minutes = budget(time_budget, walltime)
    run(options, checkpoint=checkpoint, output=output, work=work, time_budget=minutes, mark=mark)
