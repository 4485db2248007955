"""The stages of a trigger behind a port, built so that a test can replace one of them."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.http import SECRET
from whereby_trigger import Trigger
from whereby_trigger.clock import MACHINE, Clock
from whereby_trigger.config import resolve
from whereby_trigger.decide import UserCode
from whereby_trigger.receive import bind
from whereby_trigger.receive.server import Server
from whereby_trigger.replica import Replica
from whereby_trigger.store import Added, Arrival, Query, Record
from whereby_trigger.store.spill_file import SpillFile
from whereby_trigger.store.sqlite import SqliteStore


class HeldStore(SqliteStore):
    """A slow store: it stores what it gets only when `go` is set."""

    def __init__(self, url: str, lease_ttl: float = 30.0) -> None:
        super().__init__(url, lease_ttl)
        self.go = asyncio.Event()
        self.asked = 0

    async def _add(self, arrival: Arrival) -> Added:
        self.asked += 1
        await self.go.wait()
        return await super().add(arrival)

    def add(self, arrival: Arrival) -> "asyncio.Future[Added]":
        return asyncio.ensure_future(self._add(arrival))


class PingedStore(SqliteStore):
    """A store that counts its pings, and answers them when `go` is set."""

    def __init__(self, url: str, lease_ttl: float = 30.0) -> None:
        super().__init__(url, lease_ttl)
        self.go = asyncio.Event()
        self.pings = 0

    async def ping(self, now: float) -> None:
        self.pings += 1
        await self.go.wait()
        await super().ping(now)


class Receiver:
    """Serve a trigger on a store of a test's choice for an `async with` block; settings are keywords."""

    def __init__(
        self,
        folder: Path,
        trigger: Trigger | None = None,
        store: type[SqliteStore] = SqliteStore,
        spill_file: SpillFile | None = None,
        clock: Clock = MACHINE,
        **settings: Any,
    ) -> None:
        defaults = {"store": f"sqlite:///{folder}/webhooks.db", "secret": SECRET}
        self.settings = resolve({**defaults, **settings}, {}, {}).settings
        self.store = store(self.settings.store, self.settings.lease_ttl)
        self._spill_file = spill_file
        self._clock = clock
        self._trigger = trigger or Trigger()

    async def __aenter__(self) -> "Receiver":
        user_code = UserCode(self.settings.predicate_timeout)
        stages = self._trigger.predicates, self._trigger.emitter, user_code
        self.running = Replica(self.settings, self.store, *stages, spill_file=self._spill_file, clock=self._clock)
        self.edge = self.running.endpoint
        await self.running.open()
        self.server = Server(self.edge, bind("127.0.0.1", 0))
        await self.server.open()
        self.port = self.server.port
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.running.drain(5, asyncio.Event())
        await self.server.close()
        await self.running.close(1)

    async def records(self) -> list[Record]:
        """Read the stored webhooks, oldest first."""
        return (await self.store.find(Query()))[::-1]
