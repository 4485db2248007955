"""Who is there, seen through a FIFO that each program holds open: it ends when the last of them is gone."""

import os
import select
import time
from pathlib import Path
from types import TracebackType

WITHIN = 20.0


class Presence:
    """Read what programs write to the FIFO at `path`, and wait until no process holds it any more."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._rest = b""
        self._lines: list[str] = []

    def line(self, text: str, within: float = WITHIN) -> str:
        """Wait for the next line that contains a text, and return it."""
        deadline = time.monotonic() + within
        while True:
            while self._lines:
                line = self._lines.pop(0)
                if text in line:
                    return line
            assert self._read(deadline), f"all are gone, and none said {text!r}"

    def everybody_gone(self, within: float = WITHIN) -> list[str]:
        """Wait until all who came are gone, and return the lines that were not read before."""
        deadline = time.monotonic() + within
        while self._read(deadline):
            continue
        lines, self._lines = self._lines, []
        return lines

    def _read(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        ready = left > 0 and select.select([self._descriptor], [], [], left)[0]
        assert ready, f"not in time; of what was not read, the last is {self._lines[-3:]}"
        data = os.read(self._descriptor, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += [line.decode() for line in lines]
        return bool(data)

    def __enter__(self) -> "Presence":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
