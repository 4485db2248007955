"""A terminal for a program that looks different on one."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support import forks
from tests.support.process import COMMAND, WITHIN, clean_environment


def run_on_terminal(*arguments: str, cwd: Path, columns: int = 200, env: Mapping[str, str] | None = None) -> str:
    """Run the command line to its end on a terminal, and return what it showed there."""
    size = {"COLUMNS": str(columns), "TERM": "xterm", **(env or {})}
    shown = shown_by([COMMAND, *arguments], cwd=cwd, env=clean_environment(size))
    return shown.decode().replace("\r\n", "\n")


def shown_by(program: list[str], *, cwd: Path, env: Mapping[str, str]) -> bytes:
    """Run a program to its end on a terminal, and return the bytes that it showed."""
    mine, its = pty.openpty()
    fork = forks.forked(program, cwd=cwd, env=env, session=False, streams=(its, its, its))
    popen = fork or subprocess.Popen(program, cwd=cwd, env=env, stdin=its, stdout=its, stderr=its)
    try:
        os.close(its)
        shown = b"".join(iter(lambda: _read(mine), b""))
        os.close(mine)
    finally:
        popen.wait(WITHIN)
    return shown


OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """Run a program on a terminal for a `with` block, and read what it shows there."""

    def __init__(self, program: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._mine, its = pty.openpty()
        size = {"COLUMNS": "200", "TERM": "xterm", **(env or {})}
        # It has its own terminal, as from a shell: then Ctrl-C is a signal.
        program = [sys.executable, "-c", OWN_TERMINAL, *program]
        self._popen = subprocess.Popen(
            program, cwd=cwd, env=clean_environment(size), stdin=its, stdout=its, stderr=its, start_new_session=True
        )
        os.close(its)
        self._shown = b""

    def until(self, pattern: str) -> re.Match[str]:
        """Read until a pattern is found in what was shown, and return the match."""
        while (found := re.search(pattern, self._text())) is None:
            more = _read(self._mine)
            assert more, f"it ended without {pattern!r}: {self._text()}"
            self._shown += more
        return found

    def press(self, key: str) -> None:
        """Press a key, such as Ctrl-C, which is \\x03."""
        os.write(self._mine, key.encode())

    def ended(self) -> int:
        """Wait for its end, and return its exit code."""
        self._shown += b"".join(iter(lambda: _read(self._mine), b""))
        return self._popen.wait(WITHIN)

    @property
    def shown(self) -> str:
        """All that was shown and read."""
        return self._text()

    def stop(self) -> str:
        """End it with SIGTERM, and return everything it showed."""
        self._popen.terminate()
        self._shown += b"".join(iter(lambda: _read(self._mine), b""))
        assert self._popen.wait(WITHIN) == 0
        return self._text()

    def _text(self) -> str:
        return self._shown.decode(errors="replace").replace("\r\n", "\n")

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.kill()
        self._popen.wait(WITHIN)
        os.close(self._mine)


def _read(descriptor: int) -> bytes:
    """Read what is available; a terminal whose other end is closed is an error on Linux, and the end elsewhere."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
