"""An assistant's process: its environment, its guard, its output and its end."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

from msgspec import Struct

from whereby_trigger import leftovers
from whereby_trigger.assist.pipes import Feed, LineReader, readable
from whereby_trigger.config import OPTIONS, PREFIX
from whereby_trigger.errors import AssistantError, SystemExhausted
from whereby_trigger.process import default_files
from whereby_trigger.shortage import ERRORS, named_in, shortage_of

LIBPQ: Final = frozenset({"PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE"})
"""The variables by which a PostgreSQL store is opened where its URL has no password.

Source: PostgreSQL docs, libpq, Environment Variables.
"""

LONG_ENOUGH: Final = 12
"""Characters from which on a secret is looked for inside of other values: a shorter one may be part of a word."""


def child_environment(
    base: Mapping[str, str], room: Mapping[str, str], extra: Mapping[str, str], *, hidden: Collection[str] = ()
) -> dict[str, str]:
    """Give a process assistant's environment: `base`, the user's `extra` over it, the variables of its room over both.

    Left out are this package's settings, by name, and whatever holds one of the `hidden` values (the secrets, the
    store's URL) or the password in one, under any name and also where `extra` holds it: `{**os.environ, …}` is a habit.
    Where a hidden value is a PostgreSQL's URL, so is what else may open it.
    """
    values = frozenset(_with_passwords(hidden))
    names = LIBPQ if any(value.startswith(("postgresql:", "postgres:")) for value in hidden) else frozenset[str]()
    inherited = {name: value for name, value in {**base, **extra}.items() if name not in names}
    kept = {name: value for name, value in inherited.items() if not _is_ours(name) and not _holds(value, values)}
    return {**kept, **room}


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) or any(
        name in option.environment for option in OPTIONS if option.name in ("secret", "store")
    )


def _holds(value: str, hidden: Collection[str]) -> bool:
    return any(value == secret or (len(secret) >= LONG_ENOUGH and secret in value) for secret in hidden)


def _with_passwords(hidden: Collection[str]) -> Iterator[str]:
    for value in filter(None, hidden):
        yield value
        for password in filter(None, _passwords(value)):
            yield password
            yield unquote(password)


def _passwords(url: str) -> list[str | None]:
    try:
        parts = urlsplit(url)
        return [parts.password, *(value for name, value in parse_qsl(parts.query) if name == "password")]
    except ValueError:
        return []


GUARD = Path(__file__).with_name("guard.py")

FILES = "WHEREBY_TRIGGER_GUARD_FILES"
"""The variable by which the guard is told how many files its assistant may open, if not as many as we."""


class Spawned(Struct, frozen=True):
    """Hold a guard's process, and our ends of what leads to it and to its assistant, as descriptors."""

    popen: "subprocess.Popen[bytes]"
    control: int
    stdin: int
    stderr: int
    stdout: int | None


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    deadline: float,
    grace: float,
    *,
    life: int | None,
    run: str,
    stdout: bool,
) -> Spawned:
    """Start a guard for a command, with the assistant's stdout kept or dropped.

    `life` is the descriptor of the replica's lock, if it has one, which the guard then holds too; `run` names the run.

    Raises OSError where the system has no room for it, ValueError where a text cannot be handed to a process.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        here, there = (end.detach() for end in socket.socketpair())
        control = _closed_by(ours, here)
        their_control = _closed_by(theirs, there)
        their_stdin, stdin = _pipe(theirs, ours)
        stderr, their_stderr = _pipe(ours, theirs)
        kept, their_stdout = _pipe(ours, theirs) if stdout else (None, subprocess.DEVNULL)
        told = (their_control, os.getpid(), float(deadline), float(grace), -1 if life is None else life, run)
        files = default_files()
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), *map(str, told), *argv],
            env=dict(env) if files is None else {**env, FILES: str(files)},
            stdin=their_stdin,
            stdout=their_stdout,
            stderr=their_stderr,
            pass_fds=(their_control,) if life is None else (their_control, life),
            start_new_session=True,
        )
        ours.pop_all()
    return Spawned(popen, control, stdin, stderr, kept)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    return _closed_by(reader, reading), _closed_by(writer, writing)


def _closed_by(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


KEPT: Final = 50
"""Lines of stderr that are kept."""

LINGER: Final = 1.0
"""Seconds that the output of a process which left its group unseen is read on."""

SLACK: Final = 5.0
"""Seconds past a stop's grace after which a guard that does nothing is done without."""

TakeLine = Callable[[str, str], None]


class Exit(Struct, frozen=True):
    """Describe how a process ended: its exit code, or the signal; and its last lines of stderr.

    `late`: its guard had to end it, since its deadline was near and nobody had moved that.
    """

    code: int | None
    signal: int | None
    stderr: tuple[str, ...]
    late: bool = False


class GuardedProcess:
    """Run a process behind a guard, which ends it with all that it started when this process cannot.

    It belongs to the event loop that it was started on.
    """

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        input: bytes,
        deadline: float,
        grace: float,
        line: TakeLine | None = None,
        life: int | None = None,
        run: str | None = None,
    ) -> "GuardedProcess":
        """Start a program, found on the PATH of `env`, and return when it runs.

        `input` goes to its stdin, which then ends. By `deadline`, on the boot clock, all of it has been killed unless
        `extend` moved that; `grace` is how many seconds it has between TERM and KILL, 2 at most, when the deadline is
        near or this process is gone. `line` is called with "stdout" or "stderr" and each line; without it stdout is
        dropped. `life` is the descriptor of the lock that shows this replica alive, if it has one: the guard holds it
        until nothing of the process is left. `run` names this run and no other.

        Raises AssistantError if the program cannot be started, and SystemExhausted if that is no fault of its own. A
        start that is cancelled leaves nothing.
        """
        if sys.platform == "win32":
            raise AssistantError(
                "a command cannot be an assistant on Windows: use a coroutine, or run this on Linux or macOS"
            )
        run = run or uuid4().hex
        try:
            spawned = spawn(argv, env, deadline, grace, life=life, run=run, stdout=line is not None)
        except (OSError, ValueError, MemoryError) as error:
            raise _not_started(argv[0], shortage_of(error), str(error)) from error
        process = cls(argv[0], run, spawned, input, line)
        try:
            await asyncio.shield(process._started)
        except AssistantError:
            await process.wait()
            raise
        except asyncio.CancelledError:
            process.stop(0)
            await asyncio.wait({process._over})
            raise
        return process

    def __init__(self, name: str, run: str, spawned: Spawned, input: bytes, line: TakeLine | None) -> None:
        self.pid = 0
        self._name = name
        self._run = run
        self._popen = spawned.popen
        self._control = spawned.control
        self._line = line
        self._code: int | None = None
        self._late = False
        self._stderr: deque[bytes] = deque(maxlen=KEPT)
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._backstop: asyncio.TimerHandle | None = None
        self._status = LineReader(spawned.control, self._told)
        self._feed = Feed(spawned.stdin, input)
        self._errors = LineReader(spawned.stderr, self._take_stderr)
        self._outputs = [self._errors]
        if spawned.stdout is not None:
            self._outputs.append(LineReader(spawned.stdout, self._take_stdout))
        self._over = asyncio.create_task(self._see_out(), name=f"whereby-trigger guard of {name}")

    def extend(self, deadline: float) -> None:
        """Move the deadline, on the boot clock; too late once the process was told to end."""
        self._tell(f"deadline {float(deadline)}")

    def stop(self, grace: float) -> None:
        """Send TERM to the process and all that it started, and KILL after `grace` seconds; 0 is KILL at once."""
        if self._over.done():
            return
        self._tell(f"stop {float(grace)}")
        if self._backstop is not None:
            self._backstop.cancel()
        self._backstop = self._loop.call_later(grace + SLACK, self._do_without_guard)

    async def wait(self) -> Exit:
        """Wait until the process and all that it started are gone."""
        return await asyncio.shield(self._over)

    def _tell(self, line: str) -> None:
        # A guard that does not listen is frozen: when it goes on, it acts on the deadline it knows.
        if self._status.open:
            with contextlib.suppress(OSError):
                os.write(self._control, line.encode() + b"\n")

    def _told(self, line: bytes) -> None:
        word, _, number = line.partition(b" ")
        if word == b"started":
            self.pid = int(number)
            self._started.set_result(None)
        elif word == b"failed":
            short = ERRORS.get(int(number))
            self._started.set_exception(_not_started(self._name, short, _why_not_started(int(number))))
        elif word == b"late":
            self._late = True
        elif word == b"exited":
            self._code = int(number)

    def _take_stderr(self, line: bytes) -> None:
        self._stderr.append(line)
        if self._line is not None:
            self._line("stderr", readable(line))

    def _take_stdout(self, line: bytes) -> None:
        if self._line is not None:
            self._line("stdout", readable(line))

    async def _see_out(self) -> Exit:
        try:
            await self._status.ended
            if self._code is None:
                self._kill_group()
            while self._popen.poll() is None:  # noqa: ASYNC110 - it is about to end, and what tells of it varies by loop
                await asyncio.sleep(0.001)
            if self._code is None or self._popen.returncode != 0:
                await leftovers.end([self._run])
            await asyncio.wait([output.ended for output in self._outputs], timeout=LINGER)
        finally:
            self._close()
        return self._exit()

    def _exit(self) -> Exit:
        # What is still to be logged was printed all the same.
        stderr = tuple(map(readable, [*self._stderr, *self._errors.left][-KEPT:]))
        if not self._started.done():
            reason = stderr[-1] if stderr else "its guard was killed"
            self._started.set_exception(_not_started(self._name, named_in(reason), reason))
        if self._code is None:
            return Exit(None, signal.SIGKILL, (*stderr, "whereby-trigger: killed, as its guard was"))
        code, number = (self._code, None) if self._code >= 0 else (None, -self._code)
        return Exit(code, number, stderr, self._late)

    def _close(self) -> None:
        if self._backstop is not None:
            self._backstop.cancel()
        self._feed.close()
        for reader in (self._status, *self._outputs):
            reader.close()

    def _do_without_guard(self) -> None:
        if self._code is None:
            self._kill_group()
            self._popen.kill()

    def _kill_group(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def _not_started(name: str, short: str | None, why: str) -> AssistantError:
    if short is None:
        return AssistantError(f"the assistant {name} cannot be started: {why}")
    return SystemExhausted(f"the assistant {name} cannot be started now: out of {short}")


def _why_not_started(number: int) -> str:
    if number == errno.ENOENT:
        return "no such program; check its spelling, the PATH, and the interpreter that its first line names"
    if number == errno.EACCES:
        return "it may not be executed; make it executable, or name its interpreter before it"
    if number == errno.ENOEXEC:
        return "it is no program; give it a first line that names its interpreter, or name that before it"
    if number == errno.ETIMEDOUT:
        return "its deadline had passed before it ran"
    return os.strerror(number)
