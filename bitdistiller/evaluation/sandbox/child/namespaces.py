"""Isolation by namespaces: a root directory that holds Python and one empty folder, no network, no other process."""

import os
import random

import kernel

# Any directory that exists everywhere will do: in the new mount namespace the new root is put together on top of it.
NEW_ROOT = "/proc"
SCRATCH = "/scratch"
NOBODY = 65534
OWN_NAMESPACES = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
)


def enter(readable: list[str], devices: list[str], scratch: str, scratch_mb: int) -> str:
    """
    Go on as the only process of new namespaces and return the working folder; the old process waits and then ends.

    Only the folders `readable` exist there, read-only, beside an empty `scratch_mb` MiB folder in memory. As root the
    process becomes an unprivileged user; as a plain user it makes a user namespace first.
    """
    as_root = unshare()
    child = os.fork()
    if child:
        relay(child)
    kernel.die_with_parent(0)
    build_root(readable, devices, scratch_mb)
    if as_root:
        become_nobody()
    kernel.drop_capabilities()
    kernel.die_with_parent(0)
    return SCRATCH


def unshare() -> bool:
    """New namespaces, and whether that went without a user namespace, by root's own right."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        try:
            kernel.unshare(OWN_NAMESPACES)
            return True
        except PermissionError:
            pass
    kernel.unshare(kernel.CLONE_NEWUSER | OWN_NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as handle:
            handle.write(text)
    return False


def relay(child: int) -> None:
    """Wait for the child and end as it did: its exit code, or 128 and the signal that killed it."""
    os.closerange(3, 2**20)
    _, status = os.waitpid(child, 0)
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def build_root(readable: list[str], devices: list[str], scratch_mb: int) -> None:
    """Put together the new root directory and enter it."""
    safe = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", NEW_ROOT, "tmpfs", safe, "size=1m,mode=755")
    for path in readable:
        os.makedirs(NEW_ROOT + path, exist_ok=True)
        bind(path, read_only=True)
    for path in devices:
        os.makedirs(NEW_ROOT + os.path.dirname(path), exist_ok=True)
        open(NEW_ROOT + path, "w").close()
        bind(path, read_only=False)
    os.makedirs(NEW_ROOT + SCRATCH, exist_ok=True)
    kernel.mount("tmpfs", NEW_ROOT + SCRATCH, "tmpfs", safe, f"size={scratch_mb}m,mode=1777")
    kernel.mount(None, NEW_ROOT, None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | safe)
    kernel.change_root(NEW_ROOT)


def bind(path: str, read_only: bool) -> None:
    """Show `path` at the same place below the new root."""
    kernel.mount(path, NEW_ROOT + path, None, kernel.MS_BIND | kernel.MS_REC)
    if read_only:
        kernel.make_read_only(NEW_ROOT + path)


def become_nobody() -> None:
    """Change to a user id that nobody else has, so that limits per user bind and count this program alone."""
    os.setgroups([])
    for number in (random.SystemRandom().randrange(2**30, 2**31), NOBODY):
        try:
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            return
        except OSError:
            continue
    raise OSError("cannot become an unprivileged user")
