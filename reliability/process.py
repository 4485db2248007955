"""The receivers of a row: started, awaited, killed, and always gone at the end."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from whereby_trigger.testing.program import Program, ProgramFailed

ROOT = Path(__file__).resolve().parent.parent
ReceiverFailed = ProgramFailed


def receiver_on(store: str, *options: str) -> tuple[str, ...]:
    """Return the command that runs the program under test on a store, with its options."""
    return (sys.executable, "-m", "reliability.receiver", "--store", store, *options)


class Receiver(Program):
    """Hold one life of the program under test, which may run under another program."""

    async def kill_child(self) -> None:
        """Kill it with -9 if it runs under another program, which then ends on its own; wait until both are gone."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        for child in (await asyncio.to_thread(children.read_text, encoding="ascii")).split():
            os.kill(int(child), signal.SIGKILL)
        await self.ended()


class Receivers:
    """Start receivers on one store, one life after the other or several at once.

    Each runs under the command `prefix` and gets `options`.
    """

    def __init__(
        self, store: str, emissions: Path, *, prefix: tuple[str, ...] = (), options: tuple[str, ...] = ()
    ) -> None:
        self._program = (*prefix, *receiver_on(store, "--emissions", str(emissions), *options))
        self._all: list[Receiver] = []
        self.lives = 0

    async def start(self, *options: str) -> Receiver:
        """Start another receiver, with options of the program; it may not listen yet."""
        self.lives += 1
        receiver = await Receiver.start((*self._program, "--life", str(self.lives), *options), cwd=ROOT)
        self._all.append(receiver)
        return receiver

    async def why_not_refused(self, refusal: str, *options: str) -> list[str]:
        """Start another receiver, which must exit and name the refusal; return what is wrong if it does not."""
        receiver = await self.start(*options)
        with contextlib.suppress(ReceiverFailed):
            await receiver.listening()
            return ["it is taken"]
        code = await receiver.ended()
        if code == 0 or refusal not in receiver.last_words:
            return [f"it ends with {code} and does not say {refusal!r}:\n{receiver.last_words}"]
        return []

    async def close(self) -> None:
        """Kill every receiver that still runs."""
        for receiver in self._all:
            await receiver.kill()
