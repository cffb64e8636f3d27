"""The commands of packed checkpoints, part of the command line: nothing but argument parsing."""

from __future__ import annotations

import typer

commands = typer.Typer()
