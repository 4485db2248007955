"""The supervisor's ends of an assistant's pipes, read and written as the event loop finds them ready."""

import asyncio
import os
from collections.abc import Callable

from whereby_trigger.assist.output import Lines

CHUNK = 64 * 1024


class LineReader:
    """Hand each line of a descriptor to a function until its end. The descriptor is closed then, or by `close`."""

    def __init__(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._take = take
        self._lines = Lines()
        self.open = True
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Read no more."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        if not self.ended.done():
            self.ended.set_result(None)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self.close()
        for line in self._lines.feed(data) if data else self._lines.end():
            try:
                self._take(line)
            except Exception as error:
                self._loop.call_exception_handler({"message": "a line of output was not taken", "exception": error})


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
