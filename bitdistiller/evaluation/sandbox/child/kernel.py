"""Linux system calls that Python's standard library lacks."""

import ctypes
import os
import platform

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 0x1, 0x2, 0x4, 0x20
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 0x1

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SIGKILL = 9
CAPABILITY_VERSION_3 = 0x20080522

PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR = 442


def checked(result: int, what: str) -> int:
    """The result of a C call; raises OSError with its errno and `what` when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(what: str, number: int, *arguments: object) -> int:
    """A raw system call; integers are passed as 64-bit words."""
    words = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    return checked(libc.syscall(ctypes.c_long(number), *words), what)


def prctl(option: int, value: object, more: object = 0) -> int:
    """prctl(2) with up to two arguments."""
    as_long = (ctypes.c_ulong(a) if isinstance(a, int) else a for a in (value, more))
    return checked(libc.prctl(option, *as_long, ctypes.c_ulong(0), ctypes.c_ulong(0)), f"prctl {option}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    checked(libc.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    result = libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    checked(result, f"mount {target}")


def make_read_only(target: str) -> None:
    """Make a bind mount, with those below it where the kernel can (5.12), read-only."""
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    try:
        path = ctypes.c_char_p(os.fsencode(target))
        syscall("mount_setattr", MOUNT_SETATTR, AT_FDCWD, path, AT_RECURSIVE, ctypes.byref(attributes), size)
    except OSError:
        locked = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | 0x8 | 0x400 | 0x800)
        mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | locked)


def change_root(new_root: str) -> None:
    """Make the mount `new_root` the root directory and let go of the old one."""
    if platform.machine() not in PIVOT_ROOT:
        raise OSError(f"pivot_root: unknown processor {platform.machine()}")
    os.chdir(new_root)
    here = ctypes.c_char_p(b".")
    syscall("pivot_root", PIVOT_ROOT[platform.machine()], here, here)
    checked(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, whose id is `parent`, ends."""
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def drop_capabilities() -> None:
    """Give up every capability of this process, for good."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    checked(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
