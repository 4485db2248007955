"""What docs/scaling.md calculates with: figures that were measured on a real PostgreSQL, kept as JSON."""

from pathlib import Path

import msgspec
from msgspec import Struct

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "scaling.json"


class Look(Struct, frozen=True):
    """Hold for how many milliseconds a replica's queries of twice a second keep a core of the database busy.

    It was measured with `live` live rooms, `rooms` of them this replica's, and `per_second` webhooks per second.
    """

    live: int
    rooms: int
    per_second: float
    milliseconds: float


class Figures(Struct, frozen=True):
    """Hold what was measured: bytes of a webhook and of an assistant, on disk and in the log, and the looks.

    `webhooks` and `assistants` are how many were stored; `kept` is how many of the webhooks were kept at a time.
    """

    date: str
    machine: list[str]
    postgres: str
    webhooks: int
    kept: int
    assistants: int
    webhook_table: float
    webhook_indexes: float
    webhook_log: float
    assistant_disk: float
    assistant_log: float
    looks: list[Look]

    @property
    def webhook_disk(self) -> float:
        return self.webhook_table + self.webhook_indexes


def load(kept: Path = KEPT) -> Figures:
    """Read the last measurement."""
    return msgspec.json.decode(kept.read_bytes(), type=Figures)


def save(figures: Figures, kept: Path = KEPT) -> None:
    """Save a measurement."""
    kept.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
