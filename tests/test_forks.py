"""A forked program finds itself in the same state as a normally started one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import forks
from tests.support.forks import IMPORTED, READ_AT_START, ROOT, Forked, start
from tests.support.process import COMMAND, clean_environment
from tests.support.programs import write
from tests.support.terminal import shown_by
from tests.support.until import until

pytestmark = pytest.mark.skipif(not forks.can_fork(), reason="only Linux has a pidfd")

TELLING = """
import gc, json, os, resource, signal, sys, threading, time

umask = os.umask(0)
streams = (sys.stdin, sys.stdout, sys.stderr)
print(json.dumps({
    "name": __name__, "file": __file__, "argv": sys.argv, "path": sys.path, "flags": list(sys.flags),
    "cwd": os.getcwd(), "environ": dict(os.environ), "umask": umask, "zone": time.tzname,
    "threads": threading.active_count(),
    "leads": (os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()),
    "descriptors": [fd for fd in range(64) if os.path.exists(f"/proc/self/fd/{fd}")],
    "streams": [[s.name, s.encoding, s.errors, s.line_buffering, s.isatty(), s.newlines] for s in streams],
    "same": [sys.__stdin__ is sys.stdin, sys.__stdout__ is sys.stdout, sys.__stderr__ is sys.stderr],
    "signals": [str(signal.getsignal(number)) for number in range(1, 65) if number not in (32, 33)],
    "mask": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
    "limits": [resource.getrlimit(number) for number in range(16)],
    "warnings": sys.warnoptions, "collects": gc.get_threshold(), "tests": "tests" in sys.modules,
}))
print("an error", file=sys.stderr)
sys.exit(3)
"""

READING = """
import importlib, os, sys

read = []

class Noting(dict):
    def __getitem__(self, name):
        read.append(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        read.append(name)
        return super().get(name, default)

    def __contains__(self, name):
        read.append(name)
        return super().__contains__(name)

os.environ = Noting(os.environ)
os.getenv = os.environ.get
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted(set(read)))
"""


WORKER = """
import sys, threading
from pathlib import Path
from tests.support.forks import start
from tests.support.process import clean_environment

for session in (True, False):
    process = start(
        [sys.executable, "parent.py"], cwd=Path(sys.argv[1]), env=clean_environment(None), apart=False, session=session
    )
    print(process.stdout.readline(), end="", flush=True)
threading.Event().wait()
"""

PARENT = """
import os, subprocess, threading

child = subprocess.Popen(["sleep", "600"])
print(os.getpid(), child.pid, flush=True)
threading.Event().wait()
"""


def runs(pid: int) -> bool:
    """Return True for a process that exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def begin(program: list[str], cwd: Path, env: dict[str, str], session: bool = True) -> Any:
    return start(program, cwd=cwd, env=clean_environment(env), apart=True, session=session)


def fork(program: list[str], cwd: Path, session: bool = True, **env: str) -> Forked:
    process = begin(program, cwd, env, session)
    assert isinstance(process, Forked)
    return process


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize(
    "call",
    [lambda path: [str(path)], lambda path: [path.name], lambda path: ["-m", path.stem]],
    ids=["path", "name", "-m"],
)
def test_a_fork_finds_what_a_start_of_its_own_would(
    tmp_path: Path, call: Callable[[Path], list[str]], session: bool
) -> None:
    program = [sys.executable, *call(write(tmp_path, TELLING, "telling.py")), "one", "--two"]
    env = clean_environment({"WHEREBY_SET": "é", "TZ": "Asia/Tokyo"})
    real = subprocess.run(
        program, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=session
    )
    process = fork(program, tmp_path, session, WHEREBY_SET="é", TZ="Asia/Tokyo")
    said, complained = process.communicate(20)
    assert (process.returncode, complained.encode()) == (real.returncode, real.stderr) == (3, b"an error\n")
    assert json.loads(said) == json.loads(real.stdout)


def test_on_a_terminal_too(tmp_path: Path) -> None:
    program, env = [sys.executable, str(write(tmp_path, TELLING))], clean_environment({"COLUMNS": "9999"})
    # A command with an option that changes nothing here is started normally.
    calls = program, [sys.executable, "-X", "utf8=0", *program[1:]]
    fork, real = (json.loads(shown_by(call, cwd=tmp_path, env=env).partition(b"\r\n")[0]) for call in calls)
    assert fork == real
    assert [by_line for *_, by_line, on_a_terminal, _ in fork["streams"] if on_a_terminal] == [True] * 3


def test_the_command_line_is_forked_with_its_exit_code_and_its_output(tmp_path: Path) -> None:
    process = fork([COMMAND, "events", "show"], tmp_path)
    said, complained = process.communicate(20)
    assert (process.wait(), said) == (2, "")
    assert complained.startswith("Error: Missing argument 'ID'.")


def test_whoever_started_a_fork_signals_it_waits_for_it_and_hears_how_it_ended(tmp_path: Path) -> None:
    waits = write(tmp_path, "import threading\nprint('here', flush=True)\nthreading.Event().wait()\n")
    raises = write(tmp_path, "raise KeyError('mine')\n", "raises.py")
    process = fork([sys.executable, str(waits)], tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    assert process.wait(20) == process.poll() == process.returncode == -signal.SIGTERM
    process.kill()
    process.communicate(20)
    failed = fork([sys.executable, str(raises)], tmp_path)
    assert failed.communicate(20)[1].endswith("KeyError: 'mine'\n")
    assert failed.returncode == 1


def test_a_worker_that_is_killed_leaves_nothing_that_was_forked_for_it(tmp_path: Path) -> None:
    write(tmp_path, PARENT, "parent.py")
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pids = {int(pid) for _ in range(2) for pid in worker.stdout.readline().split()}
        assert len(pids) == 4
        worker.kill()
    try:
        until(lambda: not any(map(runs, pids)))
    finally:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["-W", "error", "app.py"], {}),
        (["-c", "print()"], {}),
        (["app.py"], {"PYTHONUNBUFFERED": "1"}),
        (["app.py"], {"LC_ALL": "C"}),
        (["app.py"], {"PYTHONPATH": "/nowhere"}),
    ],
)
def test_what_the_interpreter_reads_at_its_start_has_a_start_of_its_own(
    tmp_path: Path, options: list[str], env: dict[str, str]
) -> None:
    write(tmp_path, "print()")
    process = begin([sys.executable, *options], tmp_path, env)
    assert isinstance(process, subprocess.Popen)
    assert process.communicate(timeout=20)[0] == "\n"


def test_an_import_before_a_fork_reads_no_variable_but_those_that_have_to_be_alike() -> None:
    read = subprocess.check_output([sys.executable, "-c", READING, *IMPORTED], cwd=ROOT, text=True).split()
    assert "LANGUAGE" in read
    assert [name for name in read if not name.startswith(READ_AT_START)] == []
