"""What the receiver's listener heard: one line for each success, in the order in which they were written."""

import os
from pathlib import Path

from msgspec import Struct


class Emission(Struct, frozen=True):
    """Hold one success: in which life of the receiver, for which webhook, at which attempt, and when by its clock."""

    life: int
    id: str
    attempt: int
    at: float


def read_emissions(path: Path) -> list[Emission]:
    """Read the file; a receiver that never noted anything has none."""
    if not path.exists():
        return []
    return [parse_emission(line) for line in path.read_text(encoding="ascii").splitlines()]


class EmissionPipe:
    """Take the receiver's lines from a named pipe, where its disk takes no writes; to the receiver it is the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._text = b""

    def take(self) -> None:
        """Take what has been written, so that the pipe never fills."""
        try:
            while chunk := os.read(self._end, 65536):
                self._text += chunk
        except BlockingIOError:
            return

    def close(self) -> list[Emission]:
        """Close the pipe, and return all that came through it."""
        self.take()
        os.close(self._end)
        return [parse_emission(line) for line in self._text.decode("ascii").splitlines()]


def parse_emission(line: str) -> Emission:
    life, id, attempt, at = line.split()
    return Emission(int(life), id, int(attempt), float(at))
