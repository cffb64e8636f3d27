"""Snakemake whose plugin for SLURM asks for the state of its jobs every second, instead of ever more seldom."""

import asyncio
import signal
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

SECONDS = 1.0


async def soon(_: RemoteExecutor) -> None:
    """Wait between two polls."""
    await asyncio.sleep(SECONDS)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore Ctrl-C
    RemoteExecutor.sleep = soon
    sys.exit(main())
