"""Run a program that listens, wait for its address, and end it; and wait for what happens in other processes.

The demo, the benchmark and the reliability suite start programs with this.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable
from pathlib import Path
from typing import Any, Final, Self

from whereby_trigger.config import foreign_environment
from whereby_trigger.errors import LifecycleError

ADDRESS: Final = re.compile(rb"http://127\.0\.0\.1:([0-9]+)/")
"""How a program says on standard error where it listens."""

START_WITHIN: Final = 30.0
END_WITHIN: Final = 30.0
LAST_WORDS: Final = 30
LOOK: Final = 0.01
"""Seconds between two looks whether something has happened."""


class ProgramFailed(LifecycleError):
    """A program did not start, go on or end as it had to; the message holds the last lines of its log."""


async def spawn(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start a command in a group of its own, with no input and with its log in a pipe."""
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=sys.platform != "win32",
    )


class Program:
    """Hold a process that leads a group of its own, and read its log; made by `start`.

    `heard` is called with each line of the log.
    """

    def __init__(self, process: asyncio.subprocess.Process, heard: Callable[[bytes], None] = lambda _: None) -> None:
        self._process = process
        self._heard = heard
        self._words: deque[bytes] = deque(maxlen=LAST_WORDS)
        self._port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        heard: Callable[[bytes], None] = lambda _: None,
    ) -> Self:
        """Start a command, with `env` on top of an environment without our settings; it may not listen yet."""
        return cls(await spawn(command, cwd=cwd, env=foreign_environment() | dict(env or {})), heard)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def last_words(self) -> str:
        """The last lines of its log."""
        return b"".join(self._words).decode(errors="replace")

    async def listening(self) -> int:
        """Wait until it listens, and return the port. Raises ProgramFailed if it ends before, or takes too long."""
        try:
            async with asyncio.timeout(START_WITHIN):
                return await asyncio.shield(self._port)
        except TimeoutError:
            raise ProgramFailed(f"the program does not listen; it said:\n{self.last_words}") from None

    def signal(self, number: int) -> None:
        """Send a signal to its group, unless it has ended: another process may have its number by then."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                if sys.platform == "win32":
                    self._process.send_signal(number)
                else:
                    os.killpg(self.pid, number)

    async def kill(self) -> None:
        """Kill it with -9, with its group, and wait until it is gone."""
        self.signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        await self.ended()

    async def stop(self) -> int:
        """Make it drain, and wait for its end; return the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def died(self, within: float) -> bool:
        """Return True if it ends by SIGKILL, without our doing, within some seconds."""
        try:
            async with asyncio.timeout(within):
                return await self._process.wait() == -signal.SIGKILL
        except TimeoutError:
            return False

    async def ended(self) -> int:
        """Wait for its end; return its exit code, negative for a signal. Raises ProgramFailed if it goes on."""
        try:
            async with asyncio.timeout(END_WITHIN):
                code = await self._process.wait()
                await self._reading
        except TimeoutError:
            raise ProgramFailed(f"the program does not end; it said:\n{self.last_words}") from None
        return code

    async def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        async for line in self._process.stderr:
            self._words.append(line)
            self._heard(line)
            if not self._port.done() and (address := ADDRESS.search(line)):
                self._port.set_result(int(address[1]))
        if not self._port.done():
            self._port.set_exception(ProgramFailed(f"the program ended before it listened:\n{self.last_words}"))
            self._port.exception()


async def until(look: Callable[[], Any], within: float, every: float = LOOK) -> Any:
    """Call a function, which may be async, until it returns something true, for so many seconds; return what it did.

    What it returned last is false if the time was over: what that means, the caller says.
    """
    deadline = time.monotonic() + within
    while True:
        seen = look()
        seen = await seen if isawaitable(seen) else seen
        if seen or time.monotonic() >= deadline:
            return seen
        await asyncio.sleep(every)
