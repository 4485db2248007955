"""The kinds of store there are, each with a place of its own: what a conformance test is run on."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.clock import JumpingClock
from whereby_trigger.store import Store
from whereby_trigger.store.sqlite import SqliteStore

TTL = 30.0


@dataclass(frozen=True)
class Place:
    """Say where a store is; every call of `replica` makes one more replica of it, unopened.

    Leases there last `TTL` seconds by `clock`, which a test may put forward.
    """

    url: str
    takeover_within: float
    """Seconds after which a killed replica's webhooks can be claimed."""
    clock: JumpingClock = field(default_factory=JumpingClock)
    wall: Callable[[], float] = time.time

    def replica(self) -> Store:
        return SqliteStore(self.url, TTL, self.clock, self.wall)


def sqlite(folder: Path) -> Place:
    return Place(f"sqlite:///{folder}/webhooks.db", takeover_within=0)


KINDS: Mapping[str, Callable[[Path], Place]] = {"sqlite": sqlite}
