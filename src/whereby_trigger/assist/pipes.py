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

AT_A_TIME: Final = 20
"""Lines to hand on before the event loop gets its turn: logging one takes about 0.1 ms."""


class LineReader:
    """Call `take` with each line of a descriptor until its end, `AT_A_TIME` in one turn of the event loop.

    Nothing more is read while lines wait to be handed on, so a full pipe slows a program that prints without end.
    The descriptor is closed at its end, or by `close`; `ended` is done once the last line was handed on after that.
    """

    def __init__(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._take = take
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
        if not self.open:
            return
        handing_on = bool(self._waiting)
        self._take_in()
        self._let_go()
        if not handing_on:
            self._hand_on()

    def _read(self) -> None:
        self._take_in()
        self._hand_on()

    def _take_in(self) -> None:
        # Up to its end, if that has come: uvloop calls the reader of a socket with an error only once more, and it has
        # one if its other end was closed with unread data.
        most = CHUNK
        while self.open and most > 0:
            try:
                data = os.read(self._descriptor, most)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if data:
                self._waiting += self._lines.feed(data)
                most -= len(data)
            else:
                self._let_go()

    def _let_go(self) -> None:
        if self.open:
            self.open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._waiting += self._lines.end()

    def _hand_on(self) -> None:
        for _ in range(min(AT_A_TIME, len(self._waiting))):
            line = self._waiting.popleft()
            try:
                self._take(line)
            except Exception as error:
                self._loop.call_exception_handler({"message": "could not handle a line of output", "exception": error})
        if self._waiting:
            if self.open:
                self._loop.remove_reader(self._descriptor)
            self._loop.call_soon(self._hand_on)
        elif self.open:
            self._loop.add_reader(self._descriptor, self._read)
        elif not self.ended.done():
            self.ended.set_result(None)


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
