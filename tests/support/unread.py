"""Standard errors that nobody, or almost nobody, reads, and a program that writes to one."""

import contextlib
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.process import WITHIN, clean_environment

PAGE = 4096
ADDRESS = re.compile(rb"(http://127\.0\.0\.1:[0-9]+/)")
KINDS = ("pipe", "terminal", "gone")
PAUSES = {"there": 0.0, "slow": 1.0}
A_LINE = 250
LOOK = 0.1


class Unread:
    """Run a program for a `with` block; after the line that names its address nobody reads its log.

    `kind` is what its standard error is: a "pipe" of 4 KiB that is not read on, a "terminal" after Ctrl-S, or a pipe
    whose reader is "gone", "slow" (a line a second) or "there". Its standard output goes to the file `output`.
    With `url` no such line is waited for.
    """

    def __init__(
        self,
        kind: str,
        program: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        output: Path | None = None,
        url: str | None = None,
    ) -> None:
        self._kind = kind
        self._over = threading.Event()
        self._reader: threading.Thread | None = None
        if kind == "terminal":
            self._mine, self._its = os.openpty()
        else:
            self._mine, self._its = os.pipe()
            if sys.platform == "linux":
                fcntl.fcntl(self._its, fcntl.F_SETPIPE_SZ, PAGE)
        self.output = cwd / "output" if output is None else output
        with self.output.open("wb") as printed:
            self.popen = subprocess.Popen(
                program,
                cwd=cwd,
                env=clean_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=self._its,
                start_new_session=True,
            )
        self.url = self._address() if url is None else url
        self._stop_reading()

    def fill(self) -> None:
        """Fill it up, so the next writer blocks."""
        os.set_blocking(self._its, False)
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            while True:
                os.write(self._its, b"\n" * PAGE)
        os.set_blocking(self._its, True)

    def read_on(self) -> str:
        """Read again, to the end of the program, and return what it wrote."""
        if self._kind == "terminal":
            termios.tcflow(self._its, termios.TCOON)
        os.close(self._its)
        self._its = -1
        return b"".join(iter(self._read, b"")).decode()

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = WITHIN) -> int:
        """Send it a signal and wait for its end; return its exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(within)

    def __enter__(self) -> "Unread":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(WITHIN)
        self._over.set()
        if self._reader is not None:
            self._reader.join()
        for descriptor in (self._mine, self._its):
            if descriptor >= 0:
                os.close(descriptor)

    def _address(self) -> str:
        said = b""
        while (found := ADDRESS.search(said)) is None:
            more = self._read()
            assert more, f"it does not start: {said.decode()}"
            said += more
        return found[1].decode()

    def _stop_reading(self) -> None:
        if self._kind == "terminal":
            termios.tcflow(self._its, termios.TCOOFF)
        if self._kind == "gone":
            os.close(self._mine)
            self._mine = -1
        if self._kind in PAUSES:
            self._reader = threading.Thread(target=self._read_slowly, args=(PAUSES[self._kind],))
            self._reader.start()

    def _read_slowly(self, pause: float) -> None:
        size = PAGE if not pause else A_LINE
        while not self._over.wait(pause):
            ready, _, _ = select.select([self._mine], [], [], LOOK)
            if ready and not os.read(self._mine, size):
                return

    def _read(self) -> bytes:
        try:
            return os.read(self._mine, PAGE)
        except OSError:
            return b""
