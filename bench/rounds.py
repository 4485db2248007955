"""A round: a load on one server, or on several that share a store; it counts only if all of it was processed."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

from msgspec import Struct

from bench.bodies import Body, write_requests
from bench.load import Load, LoadFailed, together
from bench.sides import CEILING, POSTGRES, Server, Setting, Side
from reliability.measures import Usage, usage

DECIDED_WITHIN = 120.0
BACKLOG_WITHIN = 1.0
"""The most seconds of work that may be left when the last delivery is answered."""

WARM_UP = 2000


class Round(Struct, frozen=True):
    """Hold a round: webhooks per second until all are decided, and latencies in ms.

    `backlog` is how many seconds of work were left when the last delivery was answered; `server_cpu` and
    `database_cpu` are microseconds of CPU time per webhook; `generator_busy`, `database_busy` and `others` are shares
    of the load's, the database's and the servers' cores, the last one used by other processes.
    """

    per_second: float
    p50: float
    p99: float
    slowest: float
    backlog: float
    server_cpu: float
    database_cpu: float
    generator_busy: float
    database_busy: float
    others: float


class Ring:
    """Run rounds of a table with the same setting and source of webhooks."""

    def __init__(self, setting: Setting, source: Iterator[Body]) -> None:
        self._setting = setting
        self._source = source

    async def round(self, servers: Sequence[Server], webhooks: int, connections: int) -> Round:
        """Load servers that have just started, wait until all is decided, and stop them; raises LoadFailed.

        Webhooks and connections are divided among them. They are warmed up first, by deliveries that count only in the
        totals.
        """
        books = servers[0].books
        mark = 0 if books is None else await books.last()
        warm_up = await self._load(servers, min(WARM_UP, webhooks), connections)
        await _decided(servers)

        before = self._usage(servers)
        load = await self._load(servers, webhooks, connections)
        decided = await _decided(servers) or load.ended
        used = self._usage(servers).since(before)

        heard = [(await server.stop()).heard for server in servers]
        await _reckon(servers[0], mark, warm_up.requests + load.requests, sum(heard))
        backlog = max(0.0, decided - load.ended)
        if backlog > BACKLOG_WITHIN:
            raise LoadFailed(f"{backlog:.1f} s of work were left when the last delivery was answered")
        return self._figures(load, backlog, used, {server.core for server in servers})

    async def _load(self, servers: Sequence[Server], webhooks: int, connections: int) -> Load:
        each, now = webhooks // len(servers), time.time()
        prepared = [write_requests(server.folder / "requests", self._source, each, now) for server in servers]
        share, core = connections // len(servers), self._setting.cores.load
        sending = [
            self._setting.generator(server.port, requests, share, core)
            for server, requests in zip(servers, prepared, strict=True)
        ]
        return together(await asyncio.gather(*sending))

    def _usage(self, servers: Sequence[Server]) -> Usage:
        database = self._setting.stores.server_pids if servers[0].side == POSTGRES else []
        return usage([server.process.pid for server in servers], database, {server.core for server in servers})

    def _figures(self, load: Load, backlog: float, used: Usage, cores: set[int]) -> Round:
        seconds = load.seconds + backlog
        shares_a_core = used.database if self._setting.cores.database in cores else 0.0
        shares_a_core += load.cpu if self._setting.cores.load in cores else 0.0
        return Round(
            per_second=load.requests / seconds,
            p50=load.p50,
            p99=load.p99,
            slowest=load.slowest,
            backlog=backlog,
            server_cpu=used.servers / load.requests * 1e6,
            database_cpu=used.database / load.requests * 1e6,
            generator_busy=load.generator_busy,
            database_busy=used.database / seconds,
            others=max(0.0, used.cores - used.servers - shares_a_core) / seconds / len(cores),
        )


async def _decided(servers: Sequence[Server]) -> float | None:
    books = servers[0].books
    return None if books is None else await books.until_decided(DECIDED_WITHIN)


async def _reckon(server: Server, mark: int, sent: int, heard: int) -> None:
    if server.side != CEILING and heard != sent:
        raise LoadFailed(f"{sent} deliveries were answered 200, but the listener was called {heard} times")
    if server.books is not None:
        counted = await server.books.counted(mark)
        if (counted.stored, counted.fired) != (sent, sent):
            raise LoadFailed(f"of {sent} deliveries {counted.stored} are stored and {counted.fired} fired")


async def several(setting: Setting, ring: Ring, side: Side, processes: int, webhooks: int, connections: int) -> Round:
    """Load `processes` processes that share a new store, dividing the load among them; raises LoadFailed."""
    async with AsyncExitStack() as stack:
        url = stack.enter_context(setting.stores.new(side))
        servers = [
            await stack.enter_async_context(setting.up(side, url=url, core=setting.cores.spread(number)))
            for number in range(processes)
        ]
        return await ring.round(servers, webhooks, connections)


def shared(setting: Setting, most: int) -> list[str]:
    """Return a warning for each process without a core of its own."""
    every = [setting.cores.spread(number) for number in range(most)]
    taken = {setting.cores.load, setting.cores.database}
    crowded = [number + 1 for number, core in enumerate(every) if core in taken or core in every[:number]]
    return [f"process {number} shared a core with the load, the database or another process" for number in crowded]
