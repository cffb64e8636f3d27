"""The sandbox against programs that mean harm, for every isolation this machine offers."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bitdistiller.evaluation.sandbox as package
from bitdistiller.evaluation.sandbox import Outcome, Sandbox, Unavailable, host
from bitdistiller.evaluation.sandbox.outcome import READY, judge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
VARIANTS = [Sandbox("namespaces"), Sandbox("namespaces", filter_calls=False), Sandbox("landlock")]


@pytest.fixture(params=VARIANTS, ids=["namespaces", "namespaces-without-filter", "landlock"], scope="module")
def sandbox(request):
    outcome = request.param.self_test()
    if not outcome.passed:
        pytest.skip(f"this machine does not offer {request.param.mechanism}: {outcome.detail}")
    return request.param


@pytest.fixture
def own_script(tmp_path, monkeypatch):
    """A copy of the sandbox's script that nothing but this test runs: other tests run theirs at the same time."""
    script = tmp_path / "child"
    shutil.copytree(host.CHILD, script)
    monkeypatch.setattr(host, "CHILD", script)
    return script


def test_a_good_program_passes(sandbox):
    program = "import re, math, collections, heapq\ndef f(x):\n    return x + 1\n"
    assert sandbox.run(program, "assert f(1) == 2") == Outcome("passed")


def test_a_wrong_program_fails_with_its_exception(sandbox):
    outcome = sandbox.run("def f(x):\n    return x\n", "assert f(1) == 2, 'wrong sum'")
    assert outcome == Outcome("failed", "AssertionError: wrong sum")
    assert sandbox.run("def f(:", "").status == "failed"


def test_details_hold_no_addresses(sandbox):
    outcome = sandbox.run("raise ValueError(object())")
    assert outcome == Outcome("failed", "ValueError: <object object at 0x...>")


def test_sets_of_text_have_the_same_order_every_time(sandbox):
    program = "raise ValueError(list({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))"
    assert sandbox.run(program).detail == sandbox.run(program).detail


def test_infinite_loop(sandbox):
    begin = time.monotonic()
    assert sandbox.run("while True: pass", timeout=1.0).status == "timeout"
    assert sandbox.run("import time; time.sleep(600)", timeout=0.5) == Outcome("timeout", "wall time")
    assert time.monotonic() - begin < 15


def test_ten_gigabytes(sandbox):
    assert sandbox.run("x = bytearray(10 * 2**30)").status == "memory"
    assert sandbox.run("x = []\nwhile True: x.append(bytearray(2**20))").status == "memory"


def test_fork_bomb(sandbox, own_script):
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    assert not sandbox.run(bomb, timeout=1.0).passed
    wait_until(lambda: processes(own_script) == 0)


def test_thread_bomb(sandbox):
    bomb = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()"
    assert not sandbox.run(bomb, timeout=2.0).passed


def test_a_process_that_outlives_its_parent_does_not(sandbox, own_script):
    program = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n"
    sandbox.run(program, timeout=1.0)
    wait_until(lambda: processes(own_script) == 0)


def test_nothing_outlives_an_evaluation_that_is_killed(sandbox, own_script):
    program = (
        "from bitdistiller.evaluation.sandbox import Sandbox, host\n"
        f"host.CHILD = {str(own_script)!r}\n"
        f"Sandbox({sandbox.mechanism!r}, filter_calls={sandbox.filter_calls}).run('while True: pass', timeout=60.0)"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as evaluation:
        wait_until(lambda: processes(own_script) > 0)
        time.sleep(0.3)
        evaluation.kill()
    wait_until(lambda: processes(own_script) == 0)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/root/.bashrc", "/proc/self/environ", "/proc/1/environ", "/sys/kernel", __file__]
)
def test_reading_a_file_outside(sandbox, path):
    outcome = sandbox.run(f"import os\nos.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read()")
    assert outcome.status == "failed"
    assert "Error" in outcome.detail


def test_the_standard_library_can_be_read(sandbox):
    assert sandbox.run("import json, os\nopen(json.__file__).read()").passed


def test_the_environment_is_empty(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET", "42")
    assert sandbox.run("import os\nassert not dict(os.environ), dict(os.environ)").passed
    assert sandbox.run("import ctypes\nassert ctypes.CDLL(None).getenv(b'SECRET') == 0").passed


def test_writing_outside(sandbox, tmp_path):
    os.chmod(tmp_path, 0o777)
    for target in (tmp_path / "new", Path("/new-file"), Path("/tmp/bitdistiller-test-new"), Path(os.__file__)):
        outcome = sandbox.run(f"with open({str(target)!r}, 'a') as handle: handle.write('x')")
        assert outcome.status == "failed", target
    assert not (tmp_path / "new").exists()
    assert not Path("/new-file").exists()


def test_changing_what_is_outside(sandbox, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("whole")
    os.chmod(tmp_path, 0o777)
    for action in ("os.remove", "lambda p: os.chmod(p, 0o777)", "lambda p: os.rename(p, p + '2')", "os.truncate"):
        call = f"({action})({str(victim)!r}{', 0' if action.endswith('truncate') else ''})"
        assert not sandbox.run(f"import os\n{call}").passed, action
    assert victim.read_text() == "whole"
    assert victim.stat().st_mode & 0o777 != 0o777


def test_writing_inside_leaves_nothing_behind(sandbox):
    before = set(os.listdir("/tmp"))
    program = "import tempfile\nwith open('note', 'w') as h: h.write('x')\nassert open('note').read() == 'x'\n"
    assert sandbox.run(program + "tempfile.NamedTemporaryFile().write(b'x')").passed
    assert not {name for name in set(os.listdir("/tmp")) - before if "note" in name}


def test_a_huge_file(sandbox):
    assert not sandbox.run("with open('x', 'wb') as h:\n    while True: h.write(bytes(2**20))").passed


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_opening_a_socket(sandbox, kind):
    with socket.socket(socket.AF_INET, getattr(socket, kind)) as server:
        server.bind(("127.0.0.1", 0))
        if kind == "SOCK_STREAM":
            server.listen()
        program = f"import socket\ns = socket.socket(socket.AF_INET, socket.{kind})\ns.settimeout(2)\n"
        outcome = sandbox.run(program + f"s.connect(('127.0.0.1', {server.getsockname()[1]}))\ns.send(b'x')")
        assert outcome.status == "failed"
        assert "Error" in outcome.detail


def test_a_unix_socket_of_the_machine(sandbox, tmp_path):
    path = f"/tmp/bitdistiller-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(path)
            server.listen()
            program = f"import socket\nsocket.socket(socket.AF_UNIX).connect({path!r})"
            assert sandbox.run(program).status == "failed"
        finally:
            os.unlink(path)


def test_killing_the_parent_and_everybody(sandbox):
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        targets = ("os.getppid()", "-1", "0", str(os.getpid()), str(bystander.pid))
        for target in targets:
            sandbox.run(f"import os\nos.kill({target}, 9)", timeout=2.0)
        assert bystander.poll() is None
        assert sandbox.run("pass").passed
    finally:
        bystander.kill()
        bystander.wait()


def test_endless_output(sandbox):
    assert sandbox.run("while True: print('x' * 10000)", timeout=1.0).status == "timeout"


def test_flooding_every_descriptor(sandbox):
    program = "import os\nwhile True:\n    for fd in range(128):\n        try: os.write(fd, b'x' * 4096)\n"
    assert not sandbox.run(program + "        except OSError: pass", timeout=2.0).passed


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "raise SystemExit(0)",
        "import os; os._exit(0)",
        "quit()",
        "exit()",
        "import os; os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.string_at(0)",
        "import os, sys; sys.stdout.write('ready\\npassed\\n'); os.write(1, b'passed'); os._exit(0)",
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'passed')\n    except OSError: pass\nos._exit(0)",
        "import os; os.closerange(3, 200); os._exit(0)",
        "import os, time; os.closerange(3, 200); time.sleep(60)",
        "import sys, builtins\nsys.exit = exit = quit = print\nbuiltins.AssertionError = int",
        "x = '''",
        "'''",
        "if False:",
    ],
)
def test_ending_before_the_checks_is_no_pass(sandbox, program):
    assert not sandbox.run(program, "assert False", timeout=5.0).passed


def test_reading_input_finds_its_end(sandbox):
    assert sandbox.run("input()").detail.startswith("EOFError")


def test_gaining_rights(sandbox):
    for call in ("os.setuid(0)", "os.setresuid(0, 0, 0)", "os.chroot('.')", "os.mknod('x', 0o60600, 0x0800)"):
        program = f"import os\n{call}\nassert open('/etc/shadow').read() or True"
        assert sandbox.run(program).status == "failed", call


def test_starting_a_program(sandbox):
    assert sandbox.run("import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'], check=True)").status == "failed"


def test_importing_the_sandbox_itself(sandbox):
    for name in ("kernel", "seccomp", "bitdistiller", "torch"):
        assert sandbox.run(f"import {name}").detail.startswith("ModuleNotFoundError"), name


def test_the_probe_says_why_nothing_works(monkeypatch):
    monkeypatch.setattr(host, "MECHANISMS", ("landlock",))
    monkeypatch.setattr(Sandbox, "self_test", lambda self: Outcome("unavailable", "Function not implemented"))
    found = Sandbox.probe()
    assert isinstance(found, Unavailable)
    assert "landlock: Function not implemented" in found.reason


def test_landlock_without_the_filter_is_refused():
    assert Sandbox("landlock", filter_calls=False).run("pass").status == "unavailable"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("mechanism", ["namespaces", "landlock"])
def test_a_plain_user_has_the_sandbox_too(tmp_path_factory, mechanism):
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("there is no Python that another user can start")
    root = Path("/tmp") / f"bitdistiller-test-user-{os.getpid()}"
    target = root / "bitdistiller" / "evaluation" / "sandbox"
    try:
        shutil.copytree(Path(package.__file__).parent, target, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in (target.parent, target.parent.parent):
            (folder / "__init__.py").touch()
        program = (
            f"from bitdistiller.evaluation.sandbox import Sandbox; box = Sandbox({mechanism!r}); "
            "print(box.self_test().status, box.self_test().detail, box.run('import os; os.fork()').status)"
        )
        command = [python, "-B", "-c", program]
        found = subprocess.run(command, cwd=root, user=12345, group=12345, extra_groups=[], env={}, capture_output=True)
        text = found.stdout.decode()
        if text.startswith("unavailable"):
            pytest.skip(f"not for a plain user on this machine: {text}")
        assert text.split() == ["passed", "failed"], found.stderr.decode()
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("said", "code", "late", "status"),
    [
        (READY + b"secret", 0, False, "passed"),
        (b"secret", 0, False, "unavailable"),
        (READY + b"secretx", 0, False, "failed"),
        (READY + READY + b"secret", 0, False, "failed"),
        (READY + b'{"status": "passed", "detail": ""}', 0, False, "failed"),
        (READY, 0, False, "exited"),
        (READY, -9, False, "killed"),
        (READY, 128 + 24, False, "timeout"),
        (READY, -9, True, "timeout"),
        (b"", -9, True, "unavailable"),
        (b"", 1, False, "unavailable"),
        (b'{"status": "unavailable", "detail": "no"}', 1, False, "unavailable"),
    ],
)
def test_only_the_token_is_a_pass(said, code, late, status):
    assert judge(said, b"secret", code, late).status == status


def wait_until(condition, seconds=20.0):
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes(script: Path) -> int:
    """Number of processes on this machine that run `script`."""
    marker = str(script).encode()
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                count += marker in (entry / "cmdline").read_bytes()
            except OSError:
                continue
    return count
