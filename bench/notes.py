"""What a program's listener noted: how often it was called, and when."""

from pathlib import Path

import msgspec
from msgspec import Struct


class Notes(Struct):
    """Hold how many successes were heard; where asked for, by a webhook's id, when: CLOCK_MONOTONIC in nanoseconds."""

    heard: int
    times: dict[str, int] = {}


def read_notes(path: Path) -> Notes:
    """Read what a program has written at its end."""
    return msgspec.json.decode(path.read_bytes(), type=Notes)
