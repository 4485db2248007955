"""A row: a fault with its dose for each store, the condition that must hold under it, and its result."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from reliability.measures import percentile
from reliability.stores import KINDS, PostgresStores, SqliteStores

Figures = dict[str, int | float | str]
"""Names of what was counted or measured, with the numbers."""

T = TypeVar("T")
Given = TypeVar("Given")


class Result(Struct, frozen=True):
    """Hold a row's figures by name, and its problems: none if the row passed."""

    figures: Figures
    problems: list[str]


def found(number: int, what: str) -> list[str]:
    """Return a problem if there is any of what must not be."""
    return [f"{number} {what}"] if number else []


def spread(what: str, seconds: Sequence[float], digits: int = 2) -> Figures:
    """Return two figures: the median and the longest of some times."""
    names = f"{what}, median (s)", f"{what}, at most (s)"
    if not seconds:
        return dict.fromkeys(names, "none")
    return dict(zip(names, (round(percentile(seconds, 50), digits), round(max(seconds), digits)), strict=True))


async def some_at_a_time(number: int, call: Callable[[Given], Awaitable[T]], values: Iterable[Given]) -> list[T]:
    """Call a function with each value, `number` of them at a time; return what it returned, in order."""
    gate = asyncio.Semaphore(number)

    async def called(value: Given) -> T:
        async with gate:
            return await call(value)

    return await asyncio.gather(*map(called, values))


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
