"""The receiver's emissions: one line for each success, in the order of writing."""

import os
from pathlib import Path

from msgspec import Struct


class Emission(Struct, frozen=True):
    """Hold one success: the receiver's life, the webhook, the attempt, and the time by the receiver's clock."""

    life: int
    id: str
    attempt: int
    at: float


def read_emissions(path: Path) -> list[Emission]:
    """Read the file; it is missing if a receiver never wrote to it."""
    if not path.exists():
        return []
    return [parse_emission(line) for line in path.read_text(encoding="ascii").splitlines()]


class EmissionPipe:
    """Read the receiver's lines from a named pipe, if its disk takes no writes; the receiver sees it as the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._text = b""

    def take(self) -> None:
        """Read what has been written, so the pipe never fills."""
        try:
            while chunk := os.read(self._end, 65536):
                self._text += chunk
        except BlockingIOError:
            return

    def close(self) -> list[Emission]:
        """Close the pipe, and return everything that came through it."""
        self.take()
        os.close(self._end)
        return [parse_emission(line) for line in self._text.decode("ascii").splitlines()]


def parse_emission(line: str) -> Emission:
    life, id, attempt, at = line.split()
    return Emission(int(life), id, int(attempt), float(at))
