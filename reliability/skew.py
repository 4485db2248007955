"""A clock that is wrong, or that jumps: libfaketime changes the time of day of some programs.

The monotonic and the boot clock stay as they are, as they do when a machine's time is set.
"""

import os
import threading
import time
from pathlib import Path
from typing import SupportsIndex

from reliability.tools import ToolMissing

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")
FILE = "FAKETIME_TIMESTAMP_FILE"


class Skew:
    """Set the clock of every program in its environment off by some seconds; raises ToolMissing."""

    def __init__(self, folder: Path) -> None:
        self._library = _library()
        self._file = folder / "offset"
        self.seconds = 0.0
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that give a program this clock.

        Source: libfaketime's README: a file that is read at each call lets the offset change in mid-run.
        """
        return {
            "LD_PRELOAD": str(self._library),
            FILE: str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: float) -> None:
        """Set the clock off by this many seconds from now on."""
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(f"{seconds:+g}", encoding="ascii")
        fresh.rename(self._file)
        self.seconds = seconds


def bear_it() -> None:
    """Keep a skewed program able to sleep: libfaketime 0.9.10 breaks the call that Python uses."""
    if FILE in os.environ:
        time.sleep = _sleep


def _sleep(seconds: SupportsIndex | float, /) -> None:
    threading.Event().wait(float(seconds))


def _library() -> Path:
    for pattern in LIBRARIES:
        for found in sorted(Path("/").glob(pattern.lstrip("/"))):
            return found
    raise ToolMissing("libfaketime is not installed: this row puts clocks off with it (Debian's package faketime)")
