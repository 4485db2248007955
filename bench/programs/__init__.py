"""The programs under test, each a process of its own; and what they share with what measures them: secret and notes.

The notes are what a program's listener records: how often it was called, and when. They are written as it goes, to save
memory.
"""

import time
from pathlib import Path

from msgspec import Struct

SECRET = "the secret of the benchmark"  # noqa: S105 - nobody else uses it
HEARD = "heard"
BUFFER = 2**16


class Notebook:
    """Record calls of a listener; with `times`, also the time of each, by CLOCK_MONOTONIC in nanoseconds."""

    def __init__(self, path: Path, *, times: bool) -> None:
        self._file = path.open("w", buffering=BUFFER, encoding="ascii")
        self._heard = 0
        self.note = self._note_time if times else self._count

    def close(self) -> None:
        """Write how many calls there were."""
        self._file.write(f"{HEARD} {self._heard}\n")
        self._file.close()

    def _count(self, key: str) -> None:
        self._heard += 1

    def _note_time(self, key: str) -> None:
        self._heard += 1
        self._file.write(f"{key} {time.monotonic_ns()}\n")


class Notes(Struct):
    """Hold how many successes there were and, if asked for, the time of each, by its key."""

    heard: int
    times: dict[str, int] = {}


def read_notes(path: Path) -> Notes:
    """Read the notes of a program that has ended."""
    times = {key: int(value) for key, value in map(str.split, path.read_text(encoding="ascii").splitlines())}
    return Notes(times.pop(HEARD), times)
