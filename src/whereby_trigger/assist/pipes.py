"""The pipes of an assistant's process: its output by lines, its input by pieces."""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final

from whereby_trigger.text import storable_text

LONGEST: Final = 8 * 1024
"""Bytes of a line that are kept."""


class Lines:
    """Split a stream of bytes into lines, none of them held longer than can be shown."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came next, and give the lines that it ended."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: LONGEST + 1]
        return lines

    def end(self) -> list[bytes]:
        """Give what stands after the last line's end, if anything does."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def readable(line: bytes) -> str:
    """Make text of a line: UTF-8 where it is, at most LONGEST bytes of it, and no NUL, which some stores refuse."""
    cut = line[:LONGEST] + "…".encode() if len(line) > LONGEST else line
    return storable_text(cut.decode("utf-8", errors="replace").rstrip("\r"))


CHUNK: Final = 64 * 1024
"""Bytes that are read at a time: as many as a pipe holds, unless somebody made it larger."""

AT_A_TIME: Final = 20
"""Lines that are handed on before the event loop sees to everybody else: to log one takes some 0.1 ms."""


class LineReader:
    """Hand each line of a descriptor to a function until its end, `AT_A_TIME` in one turn of the event loop.

    While lines wait to be handed on nothing more is read, so that a full pipe slows whoever prints without end.
    The descriptor is closed at its end, or by `close`; `ended` is done when the last line was handed on after that.
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
        """The lines that were read and are still to be handed on."""
        return list(self._waiting)

    def close(self) -> None:
        """Read no more than a last chunk, if there is one by now; it is handed on all the same."""
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
        try:
            data = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if data:
            self._waiting += self._lines.feed(data)
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
                self._loop.call_exception_handler({"message": "a line of output was not taken", "exception": error})
        if self._waiting:
            if self.open:
                self._loop.remove_reader(self._descriptor)
            self._loop.call_soon(self._hand_on)
        elif self.open:
            self._loop.add_reader(self._descriptor, self._read)
        elif not self.ended.done():
            self.ended.set_result(None)


class Feed:
    """Write bytes to a descriptor as fast as they are read. It is closed when they are written, or by `close`."""

    def __init__(self, descriptor: int, data: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._left = memoryview(data)
        self._open = True
        os.set_blocking(descriptor, False)
        self._write()

    def close(self) -> None:
        """Write no more."""
        if self._open:
            self._open = False
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._descriptor, self._left) :]
        except BlockingIOError:
            self._loop.add_writer(self._descriptor, self._write)
            return
        except BrokenPipeError:
            pass
        self.close()
