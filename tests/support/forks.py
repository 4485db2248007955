"""Programs forked from a process that has already imported their modules.

The import of the package and of its server takes most of the time of a short program, and the tests start hundreds.
What is forked is a real process: with its own arguments, environment, folder, streams and session, and an exit code. It
is a child of the server of forks, which ends with this process and ends everything that it forked: a worker of pytest
that is killed leaves nothing behind.

What is read before the program runs, such as PYTHONUNBUFFERED, cannot be changed in a fork: such a program is started
normally, and so is every program on a system without pidfd.
"""

import asyncio
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple, TextIO

from whereby_trigger.testing.program import spawn as spawn_normally

ROOT = Path(__file__).parents[2]

IMPORTED = (
    *("asyncpg", "uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl", "uvicorn.logging", "uvloop"),
    *("rich.console", "rich.markup", "rich.progress", "rich.table", "rich.text", "starlette.routing"),
    *("whereby_trigger.inspector.app", "whereby_trigger.receive.server", "whereby_trigger.store.postgres"),
    *(
        f"whereby_trigger.cli.{name}"
        for name in ("serve", "send", "events", "rooms", "assistants", "check", "arguments", "db")
    ),
    "whereby_trigger.cli.refusals",
    "whereby_trigger.testing.sender",
)
"""Modules that most of the programs started by tests import."""

READ_AT_START = ("PYTHON", "_PYTHON", "HOME", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_")
"""The beginnings of the names of variables that are read by the interpreter, its libraries, or one of these imports."""

LIMITED = {"tests.promise.short_of", "tests.store.sqlite.filling", "tests.spill.filling", "--short-of"}
"""Programs, by a module or an option, that lower their own limits: what a fork inherits from its server would count."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""The environment of the server of forks, before any test has changed it; no test's program is unbuffered."""

SHORTEST = 100_000
"""Bytes of a message that any socket accepts."""


class Request(NamedTuple):
    """Hold what to run: a script's path, or a module's name behind -m, with its arguments."""

    program: list[str]
    env: dict[str, str]
    cwd: str
    session: bool


class Forked:
    """Hold a forked program, with those parts of `subprocess.Popen` that tests use."""

    def __init__(self, request: Request, server: socket.socket, streams: Sequence[int]) -> None:
        self.args = request.program
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        self._turn = threading.Lock()
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(server, [json.dumps(request).encode()], [*streams, theirs.fileno()])
        answer, (self._pidfd,), _, _ = socket.recv_fds(self._told, SHORTEST, 1)
        self.pid = int(answer)

    def poll(self) -> int | None:
        """Return the exit code if it has ended, or None."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code. Raises subprocess.TimeoutExpired."""
        with self._turn:
            if self.returncode is None:
                if not select.select([self._told], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
                answer = self._told.recv(SHORTEST)
                assert answer, "the server of forks has ended"
                self.returncode = int(answer)
                self._told.close()
                os.close(self._pidfd)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Read everything that it prints, and wait for its end."""
        deadline, read = time.monotonic() + timeout, ["", ""]

        def keep(number: int, stream: IO[str]) -> None:
            with stream:
                read[number] = stream.read()

        streams = [(number, stream) for number, stream in enumerate((self.stdout, self.stderr)) if stream is not None]
        readers = [threading.Thread(target=keep, args=each, daemon=True) for each in streams]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        self.wait(max(0.0, deadline - time.monotonic()))
        return read[0], read[1]

    def when_it_ends(self, call: Callable[[], None]) -> None:
        """Call a function of the running event loop once it has ended."""
        loop, told = asyncio.get_running_loop(), self._told.fileno()

        def end() -> None:
            loop.remove_reader(told)
            call()

        loop.add_reader(told, end)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with self._turn, contextlib.suppress(ProcessLookupError):
            if self.returncode is None:
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)


class AsyncForked:
    """Hold a forked program, with those parts of `asyncio.subprocess.Process` that `testing.program` uses."""

    def __init__(self, fork: Forked, stderr: asyncio.StreamReader) -> None:
        self._fork = fork
        self.pid = fork.pid
        self.stderr = stderr
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        fork.when_it_ends(self._end)

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._fork.returncode

    async def wait(self) -> int:
        """Wait for its end and return its exit code."""
        return await asyncio.shield(self._ended)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(self._fork.wait())


async def spawn(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Any:
    """Start a program as `testing.program.spawn` does, as a fork if that makes no difference to it."""
    reading, writing = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    # Nobody reads its output while it runs.
    env = {name: value for name, value in env.items() if name != "PYTHONUNBUFFERED"}
    try:
        fork = forked(list(command), cwd=cwd, env=env, session=True, streams=[nothing, 1, writing])
    finally:
        os.close(nothing)
        os.close(writing)
    pipe = os.fdopen(reading, "rb", 0)
    if fork is None:
        pipe.close()
        return await spawn_normally(command, cwd=cwd, env=env)
    stderr = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stderr), pipe)
    return AsyncForked(fork, stderr)


def start(
    program: list[str], *, cwd: Path, env: Mapping[str, str], apart: bool, session: bool
) -> "subprocess.Popen[str] | Forked":
    """Start a program with no input and its output in pipes, as a fork if that makes no difference to it."""
    pipes = [os.pipe() for _ in range(2 if apart else 1)]
    outputs: list[IO[str] | None] = [os.fdopen(reading, encoding="utf-8") for reading, _ in pipes]
    streams = [os.open(os.devnull, os.O_RDONLY), *(writing for _, writing in pipes)]
    try:
        fork = forked(program, cwd=cwd, env=env, session=session, streams=[*streams, streams[-1]][:3])
    finally:
        for each in streams:
            os.close(each)
    if fork is not None:
        fork.stdout, fork.stderr = [*outputs, None][:2]
        return fork
    for output in filter(None, outputs):
        output.close()
    return subprocess.Popen(
        program,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        text=True,
        start_new_session=session,
    )


def forked(
    program: list[str], *, cwd: Path, env: Mapping[str, str], session: bool, streams: Sequence[int]
) -> Forked | None:
    """Fork a program with three descriptors as its streams; return None if it needs a normal start."""
    plain = _plain(program)
    if plain is None or not can_fork() or not _starts_alike(env):
        return None
    return Forked(Request(plain, dict(env), os.path.abspath(cwd), session), _server(), streams)


def _plain(program: list[str]) -> list[str] | None:
    """Return a call of this interpreter without it, or None if it has options, code or another program."""
    first, *rest = program
    if first == str(Path(sys.executable).with_name("whereby-trigger")):
        return program
    if first == sys.executable and rest and (rest[0] == "-m" or not rest[0].startswith("-")):
        return None if LIMITED.intersection(rest) else rest
    return None


def can_fork() -> bool:
    """Return True if this system has what forks need."""
    return hasattr(os, "pidfd_open") and sys.platform == "linux"


def _starts_alike(env: Mapping[str, str]) -> bool:
    """Return True if the interpreter would start with these variables as the server of forks has started."""
    return _read_at_start(ENVIRONMENT) == _read_at_start(env) and sum(map(len, (*env, *env.values()))) < SHORTEST // 2


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_AT_START)}


@cache
def _server() -> socket.socket:
    """Start the server of forks, and return the socket that it reads from; it ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.support.forks"]
    with theirs:
        # In a new session, so no Ctrl-C reaches it.
        server = subprocess.Popen(
            command,
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


def _serve() -> Request:
    """Fork a process for each request and report its end; return the request in each fork, which must run it."""
    control = socket.socket(fileno=os.dup(0))
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, socket.socket]] = {}
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready in running:
                pid, told = running.pop(ready)
                waiting.unregister(ready)
                os.close(ready)
                with told, contextlib.suppress(OSError):
                    # The process that asked may be gone.
                    told.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
                continue
            message, descriptors, _, _ = socket.recv_fds(control, SHORTEST, 4)
            if not message:
                _end_all(pid for pid, _ in running.values())
                sys.exit()
            request = Request(*json.loads(message))
            told = socket.socket(fileno=descriptors.pop())
            if not (pid := os.fork()):
                for connection in (control, told, *(told for _, told in running.values())):
                    connection.close()
                for pidfd in running:
                    os.close(pidfd)
                _become(request, descriptors)
                return request
            for stream in descriptors:
                os.close(stream)
            pidfd = os.pidfd_open(pid)
            running[pidfd] = pid, told
            waiting.register(pidfd, select.POLLIN)
            with contextlib.suppress(OSError):
                socket.send_fds(told, [str(pid).encode()], [pidfd])


def _end_all(forks: Iterable[int]) -> None:
    """Kill every running fork and everything it started: all processes in their sessions, and in our own."""
    sessions = {os.getsid(0), *forks}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with contextlib.suppress(ProcessLookupError):
            if pid != os.getpid() and os.getsid(pid) in sessions:
                os.kill(pid, signal.SIGKILL)


def _become(request: Request, streams: list[int]) -> None:
    """Set this fork's state to that of a normally started process."""
    if request.session:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # The existing streams know what they were opened on.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, _stream(number, getattr(sys, name)))
        setattr(sys, f"__{name}__", getattr(sys, name))
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.env)
    time.tzset()
    # In the user's project, `tests` is something else.
    for name in ("tests.support", "tests"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def _stream(number: int, before: TextIO) -> TextIO:
    """Open a descriptor as the interpreter does when it starts."""
    opened: Any = os.fdopen(number, "rb" if number == 0 else "wb", closefd=False)
    opened.raw.name = before.name
    by_line = number == 2 or os.isatty(number)
    return TextIOWrapper(opened, before.encoding, before.errors, newline="\n", line_buffering=by_line)


def _run(request: Request) -> None:
    first, *arguments = request.program
    sys.orig_argv = [sys.executable, *request.program]
    if first == "-m":
        sys.path[0] = request.cwd
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return
    path = os.path.join(request.cwd, first)
    sys.argv, sys.path[0] = request.program, os.path.dirname(path)
    sys.modules["__main__"] = main = ModuleType("__main__")
    main.__file__ = path
    exec(compile(Path(path).read_bytes(), path, "exec"), main.__dict__)  # noqa: S102 - it is what runs here


if __name__ == "__main__":
    _run(_serve())
