"""The pipes of an assistant's process: read its output line by line, write its input piece by piece."""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final

from whereby_trigger.text import storable_text

LONGEST: Final = 8 * 1024
"""Maximum bytes kept of a line."""


class Lines:
    """Split a stream of bytes into lines, cut to what can be shown."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Add the next bytes and return the lines that they complete."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: LONGEST + 1]
        return [line[: LONGEST + 1] for line in lines]

    def end(self) -> list[bytes]:
        """Return the unfinished last line, if there is one."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def readable(line: bytes) -> str:
    """Return a line as text: at most LONGEST bytes, invalid UTF-8 replaced, and no NUL, which some stores refuse."""
    cut = line[:LONGEST] + "…".encode() if len(line) > LONGEST else line
    return storable_text(cut.decode("utf-8", errors="replace").rstrip("\r"))


CHUNK: Final = 64 * 1024
"""Maximum bytes to read in one turn of the event loop: a pipe's default capacity."""

LITTLE: Final = 4 * 1024
"""Bytes that a program may print between two turns without being slowed."""

AT_A_TIME: Final = 20
"""Lines to hand on before the event loop gets its turn: logging one takes about 0.1 ms."""

BURST: Final = 0.002
"""Seconds after which the turns pause for as long as they took, so that the loop waits, and other threads run.

Beside a loop that never waits, Python lets a thread run only every few milliseconds, and a commit needs that about 20
times.
"""

LONGEST_REST: Final = 0.05
"""Seconds that they pause at most: what else the loop did meanwhile counts as theirs, such as a start of very many."""


class Turns:
    """Share turns among readers: in one turn of the event loop, all of them together hand on AT_A_TIME lines."""

    def __init__(self) -> None:
        self._waiting: deque[LineReader] = deque()
        self._goes_on = False
        self._began = self._ended = float("-inf")

    def ask(self, reader: "LineReader") -> None:
        """Schedule a reader to hand on its lines in its turn."""
        self._waiting.append(reader)
        if not self._goes_on:
            loop = asyncio.get_running_loop()
            # What comes soon after the last turn goes on with its burst.
            if (now := loop.time()) - self._ended > BURST:
                self._began = now
            loop.call_soon(self._turn, loop)
            self._goes_on = True

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        left = AT_A_TIME
        try:
            while self._waiting and left > 0:
                left -= self._waiting.popleft().hand_on(left)
        finally:
            # After an error, too, such as a lack of memory. If that keeps the next from being scheduled, ask() does it.
            self._goes_on = False
            self._schedule_next(loop)

    def _schedule_next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ended = loop.time()
        took = min(self._ended - self._began, LONGEST_REST)
        if took >= BURST:
            loop.call_later(took, self._begin, loop)
        elif self._waiting:
            loop.call_soon(self._turn, loop)
        else:
            return
        self._goes_on = True

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._began = loop.time()
        self._turn(loop)


class LineReader:
    """Call `take` with each line of a descriptor until its end, in `turns`, or without those in its own.

    Next to nothing is read while lines wait to be handed on, so a full pipe slows a program that prints without end.
    The descriptor is closed at its end, or by `close`; `ended` is done once the last line was handed on after that.
    """

    def __init__(self, descriptor: int, take: Callable[[bytes], None], turns: Turns | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._take = take
        self._turns = turns or Turns()
        self._asked = self._paused = False
        self._lines = Lines()
        self._waiting: deque[bytes] = deque()
        self.open = True
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    @property
    def left(self) -> list[bytes]:
        """The lines that were read but not handed on yet."""
        return list(self._waiting)

    def close(self) -> None:
        """Read one last chunk, if it is there already, and stop reading; all lines read are still handed on."""
        if self.open:
            self._take_in()
            self._let_go()
            self._ask()

    def _read(self) -> None:
        taken = self._take_in()
        if self.open and (self._asked or taken > LITTLE):
            self._loop.remove_reader(self._descriptor)
            self._paused = True
        self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._turns.ask(self)

    def _take_in(self) -> int:
        """Read what is there, at most CHUNK bytes; return how many."""
        # Up to its end, if that has come: uvloop calls the reader of a socket with an error only once more, and it has
        # one if its other end was closed with unread data.
        most = CHUNK
        while self.open and most > 0:
            try:
                data = os.read(self._descriptor, most)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            if data:
                self._waiting += self._lines.feed(data)
                most -= len(data)
            else:
                self._let_go()
        return CHUNK - most

    def _let_go(self) -> None:
        if self.open:
            self.open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._waiting += self._lines.end()

    def hand_on(self, most: int) -> int:
        """Hand on at most so many lines, and ask for another turn if there are more; return how many, or 1."""
        self._asked = False
        count = min(most, len(self._waiting))
        for _ in range(count):
            line = self._waiting.popleft()
            try:
                self._take(line)
            except Exception as error:
                self._loop.call_exception_handler({"message": "could not handle a line of output", "exception": error})
        if self._waiting:
            self._ask()
        elif self.open:
            if self._paused:
                self._loop.add_reader(self._descriptor, self._read)
                self._paused = False
        elif not self.ended.done():
            self.ended.set_result(None)
        # What is no whole line yet has been read as well.
        return max(1, count)


class Feed:
    """Write bytes to a descriptor as fast as they are read.

    It holds `data`, or what `write` was given last, and no more. It is closed by `close`, if nobody can read it any
    more, and once all is written after `end`.
    """

    def __init__(self, descriptor: int, data: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._left = memoryview(data)
        self._written = asyncio.Event()
        self._open = True
        self._ends = False
        os.set_blocking(descriptor, False)
        self._write()

    async def write(self, data: bytes) -> bool:
        """Write bytes after those before, and wait until they are written; return False if it is closed instead.

        Only one task may call this.
        """
        await self._written.wait()
        if self._open:
            self._left = memoryview(data)
            self._written.clear()
            self._write()
            await self._written.wait()
        return self._open

    def end(self) -> None:
        """Close the descriptor as soon as all is written."""
        self._ends = True
        if self._written.is_set():
            self.close()

    def close(self) -> None:
        """Stop writing and close the descriptor."""
        if self._open:
            self._open = False
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._written.set()

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._descriptor, self._left) :]
        except BlockingIOError:
            self._loop.add_writer(self._descriptor, self._write)
            return
        except BrokenPipeError:
            self.close()
            return
        self._loop.remove_writer(self._descriptor)
        self._written.set()
        if self._ends:
            self.close()
