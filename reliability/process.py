"""The receiver as a process: started, waited for, killed, and in any case gone at the end."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from pathlib import Path

from whereby_trigger.config import foreign_environment

ADDRESS = re.compile(rb"http://127\.0\.0\.1:([0-9]+)/")
ROOT = Path(__file__).resolve().parent.parent
PYTHON = (sys.executable, "-m")
START_WITHIN = 30.0
END_WITHIN = 30.0
LAST_WORDS = 30


class ReceiverFailed(Exception):
    """The receiver did not do what the harness waited for."""


class Receiver:
    """Hold one life of the program under test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._words: deque[bytes] = deque(maxlen=LAST_WORDS)
        self._port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The last lines of its log."""
        return b"".join(self._words).decode(errors="replace")

    async def listening(self) -> int:
        """Wait until it listens and return the port; raises ReceiverFailed if it ends before."""
        try:
            async with asyncio.timeout(START_WITHIN):
                return await asyncio.shield(self._port)
        except TimeoutError:
            raise ReceiverFailed(f"the receiver does not listen; it said:\n{self.last_words}") from None

    async def kill(self) -> None:
        """Kill it with -9, and whatever it runs under, and wait until it is gone; one that has ended is left alone.

        Another process may have its number by then.
        """
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        await self.ended()

    async def kill_child(self) -> None:
        """Kill it with -9 where it runs under another program, which then ends by itself; wait until both are gone."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        for child in (await asyncio.to_thread(children.read_text, encoding="ascii")).split():
            os.kill(int(child), signal.SIGKILL)
        await self.ended()

    async def stop(self) -> int:
        """Have it drain; return its exit code."""
        os.killpg(self.pid, signal.SIGTERM)
        return await self.ended()

    async def died(self, within: float) -> bool:
        """Tell whether it ends by SIGKILL, without our doing, within some seconds."""
        try:
            async with asyncio.timeout(within):
                return await self._process.wait() == -signal.SIGKILL
        except TimeoutError:
            return False

    async def ended(self) -> int:
        """Wait for its end; return its exit code, negative for a signal. Raises ReceiverFailed if it goes on."""
        try:
            async with asyncio.timeout(END_WITHIN):
                code = await self._process.wait()
                await self._reading
        except TimeoutError:
            raise ReceiverFailed(f"the receiver does not end; it said:\n{self.last_words}") from None
        return code

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._words.append(line)
            if not self._port.done() and (address := ADDRESS.search(line)):
                self._port.set_result(int(address[1]))
        if not self._port.done():
            self._port.set_exception(ReceiverFailed(f"the receiver ended before it listened:\n{self.last_words}"))
            self._port.exception()


class Receivers:
    """Start receivers on one store, one life after the other or several at once.

    `prefix` is a command to run each of them under, `options` are given to each.
    """

    def __init__(
        self, store: str, emissions: Path, *, prefix: tuple[str, ...] = (), options: tuple[str, ...] = ()
    ) -> None:
        program = (*PYTHON, "reliability.receiver", "--store", store, "--emissions", str(emissions))
        self._program = (*prefix, *program, *options)
        self._all: list[Receiver] = []
        self.lives = 0

    async def start(self, *options: str) -> Receiver:
        """Start another life, with options of the program; it may not listen yet."""
        self.lives += 1
        process = await asyncio.create_subprocess_exec(
            *(*self._program, "--life", str(self.lives), *options),
            cwd=ROOT,
            env=foreign_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        receiver = Receiver(process)
        self._all.append(receiver)
        return receiver

    async def why_not_refused(self, refusal: str, *options: str) -> list[str]:
        """Start another life, which must end by itself and say why; say what is wrong if it does not."""
        receiver = await self.start(*options)
        with contextlib.suppress(ReceiverFailed):
            await receiver.listening()
            return ["it is taken"]
        code = await receiver.ended()
        if code == 0 or refusal not in receiver.last_words:
            return [f"it ends with {code} and does not say {refusal!r}:\n{receiver.last_words}"]
        return []

    async def close(self) -> None:
        """Kill whatever still runs."""
        for receiver in self._all:
            await receiver.kill()
