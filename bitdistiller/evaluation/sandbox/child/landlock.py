"""Isolation by Landlock: this process can open files only below the folders it was given (Linux 5.13 or newer)."""

import ctypes
import os

import kernel

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG, RULE_PATH_BENEATH = 1, 1
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
# Bits of file access that each version of the interface knows: REFER, TRUNCATE and IOCTL_DEV came later.
FILE_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
CONNECT_AND_BIND_TCP, SCOPE_SOCKETS_AND_SIGNALS = 0b11, 0b11


class PathRule(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def enter(readable: list[str], devices: list[str], scratch: str, scratch_mb: int) -> str:
    """Shut this process out of every file that is not below `readable` (read only) or `scratch`; returns `scratch`."""
    version = min(kernel.syscall("landlock_create_ruleset", CREATE_RULESET, 0, 0, VERSION_FLAG), 6)
    everything = (1 << FILE_BITS.get(version, 16)) - 1
    handled = (everything, CONNECT_AND_BIND_TCP, SCOPE_SOCKETS_AND_SIGNALS)
    words = handled[: 1 + (version >= 4) + (version >= 6)]
    attributes = (ctypes.c_uint64 * len(words))(*words)
    size = ctypes.sizeof(attributes)
    ruleset = kernel.syscall("landlock_create_ruleset", CREATE_RULESET, ctypes.byref(attributes), size, 0)
    rules = [(path, READ_FILE | READ_DIR) for path in readable]
    rules += [(path, READ_FILE | WRITE_FILE) for path in devices]
    for path, allowed in [*rules, (scratch, everything & ~1)]:
        allow(ruleset, path, allowed)
    kernel.drop_capabilities()
    kernel.syscall("landlock_restrict_self", RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return scratch


def allow(ruleset: int, path: str, allowed: int) -> None:
    """Add one rule."""
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = PathRule(allowed, folder)
        kernel.syscall("landlock_add_rule", ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(folder)
