"""The kinds of store there are, each with a place of its own: what a conformance test is run on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from whereby_trigger.store import Store
from whereby_trigger.trigger import store_for


@dataclass(frozen=True)
class Place:
    """Say where a store is; every call of `replica` makes one more replica of it, unopened."""

    url: str
    takeover_within: float
    """Seconds after which a killed replica's webhooks can be claimed."""

    def replica(self) -> Store:
        return store_for(self.url)


def sqlite(folder: Path) -> Place:
    return Place(f"sqlite:///{folder}/webhooks.db", takeover_within=0)


KINDS: Mapping[str, Callable[[Path], Place]] = {"sqlite": sqlite}
