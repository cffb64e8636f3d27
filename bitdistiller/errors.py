"""The errors that end a command with a line for the user instead of a traceback."""

import os
import sys
from typing import NoReturn

EXIT_INPUT = 2
EXIT_REFUSED = 3
EXIT_RETRY = 75


class BitDistillerError(Exception):
    """An error whose message is written for the user; `exit_code` is the process's."""

    exit_code = 1
    said = False
    """Whether the user has been told already."""


class InputError(BitDistillerError):
    """Bad input: one line that names the key or file, what was wrong and what is accepted. Exit code 2."""

    exit_code = EXIT_INPUT


class GateClosed(BitDistillerError):
    """Earlier attempts failed the same way without progress; `bitdistiller unlock` clears it. Exit code 3."""

    exit_code = EXIT_REFUSED


class Diverged(BitDistillerError):
    """Training met too many losses or gradients in a row that were not finite; a repetition would too. Exit code 1."""


class DiskFull(BitDistillerError):
    """Something could not be written for want of space; what was saved before is whole. Exit code 1."""


class TryAgain(BitDistillerError):
    """Nothing is lost and the same command goes on from here. Exit code 75 (EX_TEMPFAIL)."""

    exit_code = EXIT_RETRY


class DeadlineReached(TryAgain):
    """The time budget is used up or the process was asked to stop; progress is saved."""


class LockHeld(TryAgain):
    """Another live process writes to the same work directory."""


def end_process(error: BitDistillerError) -> NoReturn:
    """End a process that is not ours, such as Snakemake's, at once: one line on standard error and the exit code."""
    sys.stdout.flush()
    sys.stderr.write(f"error: {error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)
