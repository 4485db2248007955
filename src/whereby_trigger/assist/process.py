"""An assistant's process: its environment, its guard, its output and its exit."""

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
from whereby_trigger.assist.pipes import Feed, LineReader, Turns, readable
from whereby_trigger.clock import GUARD_NOTICE
from whereby_trigger.config import OPTIONS, PREFIX
from whereby_trigger.errors import AssistantError, SystemExhausted
from whereby_trigger.process import default_files
from whereby_trigger.store.protocol import ignore_result
from whereby_trigger.threads import ERRORS, named_in, shortage_of

LIBPQ: Final = frozenset({"PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE"})
"""The variables that can open a PostgreSQL store whose URL has no password.

Source: PostgreSQL docs, libpq, Environment Variables.
"""

LONG_ENOUGH: Final = 12
"""Minimum length, in characters, of a secret that is also searched for inside other values.

A shorter one may be part of an ordinary word.
"""


def child_environment(
    base: Mapping[str, str], room: Mapping[str, str], extra: Mapping[str, str], *, hidden: Collection[str] = ()
) -> dict[str, str]:
    """Return a process assistant's environment: `base`, overridden by the user's `extra`, overridden by `room`.

    It leaves out this package's settings, by name, and every variable that holds one of the `hidden` values (the
    secrets, the store's URL) or the password in one. That applies to `extra` too: `{**os.environ, …}` is a habit.
    If a hidden value is a PostgreSQL URL, the variables in `LIBPQ` are left out as well.
    """
    values = frozenset(_with_passwords(hidden))
    names = LIBPQ if any(value.startswith(("postgresql:", "postgres:")) for value in hidden) else frozenset[str]()
    inherited = {name: value for name, value in {**base, **extra}.items() if name not in names}
    kept = {name: value for name, value in inherited.items() if not _is_ours(name) and not _holds(value, values)}
    return {**kept, **room}


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) or any(
        name in (*option.environment, *option.files) for option in OPTIONS if option.name in ("secret", "store")
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
"""The variable that tells the guard its assistant's limit of open files, if it differs from ours."""


class Spawned(Struct, frozen=True):
    """Hold a guard's process, and our descriptors of the pipes to it and to its assistant."""

    popen: "subprocess.Popen[bytes]"
    control: int
    stdin: int
    stderr: int
    stdout: int | None

    def discard(self) -> None:
        """Kill the guard before it has started anything, and close our ends, which the loop may watch already."""
        self.popen.kill()
        loop = asyncio.get_running_loop()
        for descriptor in (self.control, self.stdin, self.stderr, self.stdout):
            if descriptor is not None:
                loop.remove_reader(descriptor)
                loop.remove_writer(descriptor)
                os.close(descriptor)
        self.popen.wait()


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    deadline: float,
    notice: float,
    grace: float,
    *,
    life: int | None,
    run: str,
    stdout: bool,
) -> Spawned:
    """Start a guard for a command; `stdout` says whether the assistant's output is piped or dropped.

    `life` is the descriptor of the replica's lock, if it has one; the guard then holds it too. `run` names the run.

    Raises OSError if the system lacks the resources, and ValueError if an argument or variable cannot be passed to a
    process.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        here, there = (end.detach() for end in socket.socketpair())
        control = _closed_by(ours, here)
        their_control = _closed_by(theirs, there)
        their_stdin, stdin = _pipe(theirs, ours)
        stderr, their_stderr = _pipe(ours, theirs)
        kept, their_stdout = _pipe(ours, theirs) if stdout else (None, subprocess.DEVNULL)
        told = (
            their_control,
            os.getpid(),
            float(deadline),
            float(notice),
            float(grace),
            -1 if life is None else life,
            run,
        )
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
"""The number of last lines of stderr to keep."""

LINGER: Final = 1.0
"""Seconds to go on reading after the exit: a process that escaped the group may still hold the pipes."""

SLACK: Final = 5.0
"""Seconds past the grace of what should end after which we kill the guard, and its group: it does not react."""

LEFT_BEHIND: Final = 2.0
"""Seconds that a guard gives at most to what an assistant has left behind: its SHORT_GRACE."""

TakeLine = Callable[[str, str], None]


class Exit(Struct, frozen=True):
    """Describe how a process ended: its exit code or signal, and its last lines of stderr.

    `late` is True if the guard ended it because its deadline was near and nobody had extended it.
    """

    code: int | None
    signal: int | None
    stderr: tuple[str, ...]
    late: bool = False


class StartedTooLate(AssistantError):
    """Report that the deadline of a process passed before it ran, because the machine was busy or the lease lost."""


class GuardedProcess:
    """Run a process behind a guard, which ends it and everything it started, even if this process dies.

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
        notice: float = GUARD_NOTICE,
        line: TakeLine | None = None,
        life: int | None = None,
        run: str | None = None,
        keeps_stdin: bool = False,
        spawned: Callable[["GuardedProcess"], object] = lambda process: None,
        turns: Turns | None = None,
    ) -> "GuardedProcess":
        """Start a program, found on the PATH of `env`, and return once it runs.

        `input` is written to its stdin, which is then closed, or with `keeps_stdin` stays open for `write` until
        `end_input`. Everything it started is killed by `deadline`, in seconds of the boot clock, unless `extend` moves
        it; the guard sends it TERM at most `notice` seconds before that. `grace` is the number of seconds between TERM
        and KILL, at most 2, if the deadline is near or this process is gone. `line` is called with "stdout" or "stderr"
        and each line; without it stdout is dropped. `life` is the descriptor of the lock that shows this replica alive,
        if it has one: the guard holds it until nothing of the process is left. `run` is a unique name for this run.
        `spawned` is called with the process before it runs, so that `extend` can move its deadline meanwhile. Its
        output takes `turns` with that of others.

        Raises AssistantError if the program cannot be started, SystemExhausted if the system has no resources left for
        it, and StartedTooLate if the deadline passed before it ran. A cancelled start leaves nothing behind.
        """
        if sys.platform == "win32":
            raise AssistantError(
                "a command cannot be an assistant on Windows: use a coroutine, or run this on Linux or macOS"
            )
        run = run or uuid4().hex
        try:
            guard = spawn(argv, env, deadline, notice, grace, life=life, run=run, stdout=line is not None)
        except (OSError, ValueError, MemoryError) as error:
            raise _not_started(argv[0], shortage_of(error), str(error)) from error
        try:
            process = cls(argv[0], run, guard, input, line, turns)
        except Exception as error:
            # Nobody would stop it before its deadline, and meanwhile its room would get another.
            guard.discard()
            raise _not_started(argv[0], shortage_of(error), str(error)) from error
        spawned(process)
        if not keeps_stdin:
            process.end_input()
        try:
            await asyncio.shield(process._started)
        except AssistantError:
            await process.wait()
            raise
        except asyncio.CancelledError:
            await process.kill()
            raise
        return process

    def __init__(
        self, name: str, run: str, spawned: Spawned, input: bytes, line: TakeLine | None, turns: Turns | None
    ) -> None:
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
        # If the start is cancelled, nobody retrieves why it failed.
        self._started.add_done_callback(ignore_result)
        self._backstop: asyncio.TimerHandle | None = None
        self._status = LineReader(spawned.control, self._told)
        self._feed = Feed(spawned.stdin, input)
        self._errors = LineReader(spawned.stderr, self._take_stderr, turns)
        self._outputs = [self._errors]
        if spawned.stdout is not None:
            self._outputs.append(LineReader(spawned.stdout, self._take_stdout, turns))
        self._over = asyncio.create_task(self._see_out(), name=f"whereby-trigger guard of {name}")

    def extend(self, deadline: float) -> None:
        """Move the deadline, in seconds of the boot clock; no effect once the process was told to end."""
        self._tell(f"deadline {float(deadline)}")

    def stop(self, grace: float) -> None:
        """Send TERM to the process and everything it started, and KILL after `grace` seconds; 0 kills at once."""
        if self._over.done():
            return
        self._tell(f"stop {float(grace)}")
        if self._backstop is not None:
            self._backstop.cancel()
        self._backstop = self._loop.call_later(grace + SLACK, self._do_without_guard)

    def has_exited(self) -> bool:
        """Return True if the process has exited; what it started may still run."""
        return self._code is not None

    async def kill(self) -> None:
        """Kill the process and everything it started, and wait until they are gone."""
        self.stop(0)
        await asyncio.wait({self._over})

    async def write(self, data: bytes) -> bool:
        """Write to its stdin and wait until all is written; return False if nobody can read it any more.

        Only one task may call this. A process that does not read holds up this call alone, until the process is gone.
        """
        return await self._feed.write(data)

    def end_input(self) -> None:
        """Close its stdin as soon as what was given is written."""
        self._feed.end()

    async def wait(self) -> Exit:
        """Wait until the process and everything it started are gone."""
        return await asyncio.shield(self._over)

    def _tell(self, line: str) -> None:
        # A guard that does not read is frozen: once it resumes, it acts on the deadline it knows.
        if self._status.open:
            with contextlib.suppress(OSError):
                os.write(self._control, line.encode() + b"\n")

    def _told(self, line: bytes) -> None:
        word, _, number = line.partition(b" ")
        if word == b"started":
            self.pid = int(number)
            self._started.set_result(None)
        elif word == b"failed":
            self._started.set_exception(_failed_to_start(self._name, int(number)))
        elif word == b"late":
            self._late = True
        elif word == b"exited":
            self._code = int(number)
            # What it has left behind is the guard's to end, in two seconds.
            if self._backstop is None:
                self._backstop = self._loop.call_later(LEFT_BEHIND + SLACK, self._do_without_guard)

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
        # Lines that are still to be logged belong to its output too.
        stderr = tuple(map(readable, [*self._stderr, *self._errors.left][-KEPT:]))
        if not self._started.done():
            reason = stderr[-1] if stderr else "its guard was killed"
            self._started.set_exception(_not_started(self._name, named_in(reason), reason))
        if self._code is None:
            return Exit(None, signal.SIGKILL, (*stderr, "whereby-trigger: killed because its guard was killed"))
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
        # If its assistant has exited, what that has left behind is found by its mark.
        self._popen.kill()

    def _kill_group(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def _failed_to_start(name: str, number: int) -> AssistantError:
    if number == errno.ETIMEDOUT:
        return StartedTooLate(f"the assistant {name} was not started: its deadline had passed before it ran")
    return _not_started(name, ERRORS.get(number), _why_not_started(number))


def _not_started(name: str, short: str | None, why: str) -> AssistantError:
    if short is None:
        return AssistantError(f"the assistant {name} cannot be started: {why}")
    return SystemExhausted(f"the assistant {name} cannot be started now: out of {short}")


def _why_not_started(number: int) -> str:
    if number == errno.ENOENT:
        return "no such program; check its spelling, PATH, and the interpreter that its first line names"
    if number == errno.EACCES:
        return "it is not an executable file; make it executable, or put its interpreter before it"
    if number == errno.ENOEXEC:
        return "it is not a program; add a first line that names its interpreter, or put the interpreter before it"
    return os.strerror(number)
