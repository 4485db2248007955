"""What the receiver's listener heard: one line for each success, in the order in which they were written."""

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


def parse_emission(line: str) -> Emission:
    life, id, attempt, at = line.split()
    return Emission(int(life), id, int(attempt), float(at))
