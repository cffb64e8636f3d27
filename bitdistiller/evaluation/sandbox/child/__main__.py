"""
Run one untrusted program: `python -S <this folder> <token descriptor> <verdict descriptor> < request.json`.

On the verdict descriptor it writes the line `ready` once the process is confined and the program is about to start,
then either the token or a JSON object with `status` and `detail`. The token waits unread in its pipe while the program
runs, so that ending early, printing or catching exceptions cannot pass for success.
"""

import json
import os
import re
import resource
import sys
import types

import kernel
import landlock
import namespaces
import seccomp

MECHANISMS = {"namespaces": namespaces.enter, "landlock": landlock.enter}
STATUS = {"MemoryError": "memory", "SystemExit": "exited"}
TOKEN_BYTES = 64
DETAIL_CHARACTERS = 300


def readable_folders() -> list[str]:
    """The folders of the standard library and of the shared libraries that this interpreter has loaded."""
    with open("/proc/self/maps") as handle:
        files = {line.split(maxsplit=5)[5].strip() for line in handle if ".so" in line}
    folders = {os.path.dirname(path) for path in files} | set(sys.path[1:])
    found = sorted(path for path in folders if os.path.isdir(path))
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


def limit(request: dict) -> None:
    """Limits of this process; the number of processes is limited where the filter does not forbid new ones."""
    mebi = 2**20
    seconds = int(-(-request["timeout"] // 1))
    limits = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_AS: (request["memory_mb"] * mebi,) * 2,
        resource.RLIMIT_FSIZE: (request["file_mb"] * mebi,) * 2,
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_CORE: (0, 0),
    }
    if not request["filter_calls"]:
        limits[resource.RLIMIT_NPROC] = (request["processes"],) * 2
    for name, value in limits.items():
        resource.setrlimit(name, value)


def confine(request: dict) -> None:
    """Everything between this process and the machine."""
    kernel.die_with_parent(request["parent"])
    if request["mechanism"] == "landlock" and not request["filter_calls"]:
        raise OSError("Landlock needs the system call filter")
    if request["filter_calls"] and not seccomp.available():
        raise OSError("the system call filter does not know this processor")
    enter = MECHANISMS[request["mechanism"]]
    os.chdir(enter(readable_folders(), request["devices"], request["scratch"], request["scratch_mb"]))
    limit(request)
    if request["filter_calls"]:
        seccomp.install()


def forget() -> None:
    """Take this script's own traces out of the interpreter that the program is about to share."""
    sys.argv[:] = [""]
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]
    for name in ("kernel", "landlock", "namespaces", "seccomp"):
        del sys.modules[name]
    os.environ.clear()


def describe(error: BaseException) -> bytes:
    """The verdict on an exception: a line of JSON without memory addresses, so that equal runs give equal text."""
    name = type(error).__name__
    try:
        text = re.sub(r"0x[0-9a-f]{6,}", "0x...", f"{name}: {error}")[:DETAIL_CHARACTERS]
    except BaseException:
        text = name
    return json.dumps({"status": STATUS.get(name, "failed"), "detail": text}).encode()


def execute(parts: list[str], token: int, verdict: int) -> None:
    """Run the parts one after the other in one fresh module, report and end the process."""
    read, write, leave, say = os.read, os.write, os._exit, describe
    module = types.ModuleType("program")
    sys.modules["program"] = module
    write(verdict, b"ready\n")
    try:
        for part in parts:
            exec(compile(part, "<program>", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        write(verdict, say(error))
        leave(1)
    write(verdict, read(token, TOKEN_BYTES))
    leave(0)


def main() -> None:
    """Read the request, confine this process, run the program."""
    token, verdict = int(sys.argv[1]), int(sys.argv[2])
    request = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        confine(request)
    except OSError as error:
        os.write(verdict, json.dumps({"status": "unavailable", "detail": str(error)}).encode())
        os._exit(1)
    forget()
    execute(request["parts"], token, verdict)


main()
