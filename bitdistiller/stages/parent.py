"""A process that is not to outlive the one that started it."""

from __future__ import annotations

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def signal_when_parent_dies(number: signal.Signals) -> None:
    """Ask the kernel to send this process a signal when its parent dies; nothing elsewhere than on Linux."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, number)
