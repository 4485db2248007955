"""A store on SQLite that can be away, as a database can: down, so it refuses, or silent, so it never answers."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from functools import partial
from typing import Any

from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Added, Arrival
from whereby_trigger.store.sqlite import SqliteStore

Work = Callable[[sqlite3.Connection], Any]
Answer = asyncio.Future[Any]


class Reach(Enum):
    HERE = auto()
    DOWN = auto()
    SILENT = auto()


class AwayStore(SqliteStore):
    """A store that is available or away as the test sets it; `asked` lists what it was asked to add, in order.

    Requests during silence are done when it is back, unless they were cancelled; those that may wait, wait.
    """

    def __init__(self, url: str, lease_ttl: float = 30.0) -> None:
        super().__init__(url, lease_ttl)
        self.asked: list[str] = []
        self._reach = Reach.HERE
        self._turned = asyncio.Event()
        self._waiting: list[tuple[Work, bool, Answer]] = []

    def go_down(self) -> None:
        """Become unavailable: refuse requests that may not wait, including those made during silence."""
        self._turn(Reach.DOWN)
        for _, kept, answer in self._waiting:
            if not kept and not answer.done():
                answer.set_exception(refusal())

    def fall_silent(self) -> None:
        """Answer nothing."""
        self._turn(Reach.SILENT)

    def come_back(self) -> None:
        """Become available again, and do all waiting requests in order."""
        self._turn(Reach.HERE)
        waiting, self._waiting = self._waiting, []
        for work, kept, answer in waiting:
            if not answer.done():
                super()._write(work, kept=kept).add_done_callback(partial(_pass_on, answer))

    async def open(self, changed: Callable[[], None] | None = None) -> None:
        await self._reached()
        await super().open(changed)

    async def rejoin(self, ttl: float) -> None:
        await self._reached()
        await super().rejoin(ttl)

    def add(self, arrival: Arrival) -> "asyncio.Future[Added]":
        self.asked.append(arrival.id)
        return super().add(arrival)

    def _write(self, work: Work, *, kept: bool = False) -> Answer:
        if self._reach is Reach.HERE:
            return super()._write(work, kept=kept)
        answer: Answer = asyncio.get_running_loop().create_future()
        if self._reach is Reach.DOWN and not kept:
            answer.set_exception(refusal())
        else:
            self._waiting.append((work, kept, answer))
        return answer

    def _read(self, work: Work) -> Awaitable[Any]:
        return self._read_when_reached(work)

    async def _read_when_reached(self, work: Work) -> Any:
        await self._reached()
        return await super()._read(work)

    async def _reached(self) -> None:
        while self._reach is not Reach.HERE:
            if self._reach is Reach.DOWN:
                raise refusal()
            await self._turned.wait()

    def _turn(self, reach: Reach) -> None:
        self._reach = reach
        self._turned.set()
        self._turned = asyncio.Event()


def refusal() -> StoreUnavailable:
    return StoreUnavailable("the database is unavailable: it is down")


def _pass_on(answer: Answer, done: Answer) -> None:
    error = done.exception()
    if answer.done():
        return
    if error is None:
        answer.set_result(done.result())
    else:
        answer.set_exception(error)
