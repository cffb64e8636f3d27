"""A full disk: recognised in the errors of many libraries, told in one line, with nothing lost that was saved."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from bitdistiller.errors import BitDistillerError, DiskFull

WORDS = ("no space left", "disk quota exceeded", "os error 28", "unexpected pos", "file write failed")
"""How libraries that hide the system's error (safetensors, torch) speak of it."""


def is_disk_full(error: BaseException) -> bool:
    """Whether writing failed for want of space or quota."""
    if isinstance(error, BitDistillerError):
        return isinstance(error, DiskFull)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(word in str(error).lower() for word in WORDS)


@contextlib.contextmanager
def told_when_full(root: Path) -> Iterator[None]:
    """Turn whatever a full disk raises inside into DiskFull, which names the file or else `root`."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error) or isinstance(error, DiskFull):
            raise
        where = getattr(error, "filename", None) or root
        raise DiskFull(
            f"{where}: the disk is full; what was saved is whole; make room, then run the same command to go on"
        ) from error
