"""A row: a fault with its dose for each store, the condition that must hold under it, and its result."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from reliability.stores import KINDS, PostgresStores, SqliteStores

Figures = dict[str, int | float | str]
"""Names of what was counted or measured, with the numbers."""


class Result(Struct, frozen=True):
    """Hold a row's figures by name, and its problems: none if the row passed."""

    figures: Figures
    problems: list[str]


ANY = "any"
"""Replaces the store's name if a row runs without a store, or covers every store itself."""

Doses = Mapping[str, Mapping[str, Any]]


class Row(Struct, frozen=True):
    """Describe a row; `run` gets an empty folder, the stores of one kind, and that kind's dose as keywords."""

    fault: str
    must_hold: str
    run: Callable[..., Awaitable[Result]]
    doses: Doses

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of store on which it runs."""
        return tuple(self.doses)


def on_both(**dose: Any) -> Doses:
    return dict.fromkeys(KINDS, dose)


def on_sqlite(**dose: Any) -> dict[str, Mapping[str, Any]]:
    return {SqliteStores.name: dose}


def on_postgresql(**dose: Any) -> dict[str, Mapping[str, Any]]:
    return {PostgresStores.name: dose}


def once(**dose: Any) -> Doses:
    return {ANY: dose}
