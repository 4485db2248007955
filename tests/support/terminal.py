"""A terminal for a program that looks different on one."""

import os
import pty
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.process import COMMAND, WITHIN, clean_environment


def run_on_terminal(*arguments: str, cwd: Path, columns: int = 200, env: Mapping[str, str] | None = None) -> str:
    """Run the command line to its end on a terminal, and give what it showed there."""
    mine, its = pty.openpty()
    size = {"COLUMNS": str(columns), "TERM": "xterm", **(env or {})}
    program = [COMMAND, *arguments]
    with subprocess.Popen(program, cwd=cwd, env=clean_environment(size), stdin=its, stdout=its, stderr=its) as popen:
        os.close(its)
        shown = b"".join(iter(lambda: _read(mine), b""))
        os.close(mine)
        popen.wait(WITHIN)
    return shown.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    """Read what there is; a terminal whose other end is closed is an error on Linux, and the end elsewhere."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
