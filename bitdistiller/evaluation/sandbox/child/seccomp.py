"""
A system call filter: one process, threads allowed, that can reach nobody else.

Denied with EPERM: new processes and programs, sockets, signals to and inspection of other processes, changes to the
ownership or mode of files, and the kernel interfaces that go round these (io_uring, memfd, keys, IPC, namespaces).
"""

import ctypes
import errno
import platform
import struct

import kernel

SECCOMP_MODE_FILTER = 2
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
CLONE_THREAD = 0x00010000
X32_CALLS = 0x40000000

# name: (number on x86_64, number on aarch64); None where the processor does not have the call.
DENIED = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "ptrace": (101, 117), "kcmp": (312, 272),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "sched_setaffinity": (203, 122),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "setpgid": (109, 154), "setsid": (112, 157),
    "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semtimedop": (220, 192), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "io_setup": (206, 0), "io_submit": (209, 2), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "seccomp": (317, 277),
    "fanotify_init": (300, 262), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27), "syslog": (103, 116), "setxattrat": (463, 463), "removexattrat": (466, 466),
}  # fmt: skip
CLONE, CLONE3, PRLIMIT = (56, 220), (435, 435), (302, 261)
PROCESSORS = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def available() -> bool:
    """Whether the numbers of this processor's system calls are known here."""
    return platform.machine() in PROCESSORS


def statement(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One struct sock_filter: a jump counts the statements it leaves out."""
    return struct.pack("=HBBI", code, then, otherwise, value)


def program() -> bytes:
    """The filter for this processor, in classic BPF."""
    column, architecture = PROCESSORS[platform.machine()]
    deny = statement(RETURN, ERRNO | errno.EPERM)
    lines = [
        statement(LOAD, ARCHITECTURE),
        statement(EQUAL, architecture, then=1),
        statement(RETURN, KILL),
        statement(LOAD, NUMBER),
    ]
    if platform.machine() == "x86_64":
        lines += [statement(AT_LEAST, X32_CALLS, otherwise=1), deny]
    for numbers in DENIED.values():
        if numbers[column] is not None:
            lines += [statement(EQUAL, numbers[column], otherwise=1), deny]
    # glibc falls back from clone3, whose flags a filter cannot see, to clone.
    lines += [statement(EQUAL, CLONE3[column], otherwise=1), statement(RETURN, ERRNO | errno.ENOSYS)]
    lines += [*allowed_if(CLONE[column], ANY_BIT, CLONE_THREAD), *allowed_if(PRLIMIT[column], EQUAL, 0)]
    return b"".join([*lines, statement(RETURN, ALLOW)])


def allowed_if(call: int, test: int, value: int) -> list[bytes]:
    """Statements that settle `call`: allowed where its first argument passes the test, else denied."""
    return [
        statement(EQUAL, call, otherwise=4),
        statement(LOAD, FIRST_ARGUMENT),
        statement(test, value, otherwise=1),
        statement(RETURN, ALLOW),
        statement(RETURN, ERRNO | errno.EPERM),
    ]


def install() -> None:
    """Put the filter on this process and all its threads to come; needs no_new_privs."""
    code = program()
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    described = Program(len(code) // 8, ctypes.addressof(buffer))
    kernel.prctl(kernel.PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described))
