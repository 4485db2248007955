"""Standard errors that nobody reads, or that are not there, and a program that writes to one."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.process import WITHIN, clean_environment

PAGE = 4096
ADDRESS = re.compile(rb"(http://127\.0\.0\.1:[0-9]+/)")
KINDS = ("pipe", "terminal", "gone")


class Unread:
    """Run a program for as long as a `with` block; after the line that names its address nobody reads its log.

    `kind` is what its standard error is: a "pipe" of 4 KiB that is not read on, a "terminal" after Ctrl-S, or a pipe
    whose reader is "gone". Its standard output goes to the file `output`.
    """

    def __init__(
        self, kind: str, program: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, starts: bool = True
    ) -> None:
        self._kind = kind
        if kind == "terminal":
            self._mine, self._its = os.openpty()
        else:
            self._mine, self._its = os.pipe()
            if sys.platform == "linux":
                fcntl.fcntl(self._its, fcntl.F_SETPIPE_SZ, PAGE)
        self.output = cwd / "output"
        with self.output.open("wb") as output:
            self.popen = subprocess.Popen(
                program,
                cwd=cwd,
                env=clean_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=self._its,
                start_new_session=True,
            )
        self.url = self._address() if starts else ""
        self._stop_reading()

    def fill(self) -> None:
        """Fill it up, so that the next to write to it waits."""
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

    def _read(self) -> bytes:
        try:
            return os.read(self._mine, PAGE)
        except OSError:
            return b""
