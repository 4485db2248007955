"""The supervisor's side of a process assistant: started behind its guard, told, and seen through to its end."""

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import uuid4

from msgspec import Struct

from whereby_trigger import leftovers
from whereby_trigger.assist.output import readable
from whereby_trigger.assist.pipes import Feed, LineReader
from whereby_trigger.assist.spawn import Spawned, spawn
from whereby_trigger.errors import AssistantError, SystemExhausted
from whereby_trigger.shortage import ERRORS, named_in, shortage_of

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
