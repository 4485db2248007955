"""A round: one side under one load, which counts only when everything that was accepted was also done."""

import time
from collections.abc import Iterator

from msgspec import Struct

from bench.bodies import Body, write_requests
from bench.cores import Cores
from bench.load import Generator, Load, LoadFailed
from bench.sides import CEILING, POSTGRES, Server
from bench.stores import Stores
from bench.usage import busy_seconds, cpu_seconds

DECIDED_WITHIN = 120.0
BACKLOG_WITHIN = 1.0
"""The most seconds of work that may be left when the last delivery is answered."""

WARM_UP = 2000


class Round(Struct, frozen=True):
    """Hold a round: webhooks per second done with, the backlog included, and answered; latencies in ms.

    `backlog` is how many seconds of work were left when the last delivery was answered; `server_cpu` and
    `database_cpu` are microseconds of CPU time per webhook; `generator_busy` and `others` are shares of the load's and
    of the server's core, the latter taken by what is neither the server nor the database.
    """

    per_second: float
    answered_per_second: float
    p50: float
    p99: float
    slowest: float
    backlog: float
    server_cpu: float
    database_cpu: float
    generator_busy: float
    others: float


class Ring:
    """Hold what every round of a table has in common: the load's source and generator, the cores, the stores."""

    def __init__(self, generator: Generator, source: Iterator[Body], cores: Cores, stores: Stores) -> None:
        self._generator = generator
        self._source = source
        self._cores = cores
        self._stores = stores

    async def round(self, server: Server, webhooks: int, connections: int) -> Round:
        """Load a server that has just come up, wait until all is decided, and end it; raises LoadFailed.

        It is warmed up first, by deliveries that count only for the reckoning.
        """
        warm_up = min(WARM_UP, webhooks)
        mark = 0 if server.books is None else await server.books.last()
        await self._load(server, warm_up, connections)
        await _decided(server)

        server_core = self._cores.server()
        database = self._stores.server_pids if server.side == POSTGRES else []
        before = busy_seconds(server_core), cpu_seconds([server.process.pid]), cpu_seconds(database)
        load = await self._load(server, webhooks, connections)
        decided = await _decided(server) or load.ended
        after = busy_seconds(server_core), cpu_seconds([server.process.pid]), cpu_seconds(database)
        busy, server_cpu, database_cpu = (now - then for now, then in zip(after, before, strict=True))

        heard = (await server.stop()).heard
        await _reckon(server, mark, warm_up + webhooks, heard)
        backlog = max(0.0, decided - load.ended)
        if backlog > BACKLOG_WITHIN:
            raise LoadFailed(f"{backlog:.1f} s of work were left when the last delivery was answered")
        shared = database_cpu if self._cores.database == server_core else 0.0
        return Round(
            per_second=webhooks / (load.seconds + backlog),
            answered_per_second=webhooks / load.seconds,
            p50=load.p50,
            p99=load.p99,
            slowest=load.slowest,
            backlog=backlog,
            server_cpu=server_cpu / webhooks * 1e6,
            database_cpu=database_cpu / webhooks * 1e6,
            generator_busy=load.generator_busy,
            others=max(0.0, busy - server_cpu - shared) / (load.seconds + backlog),
        )

    async def _load(self, server: Server, webhooks: int, connections: int) -> Load:
        # Written when they are needed: a signature holds for five minutes.
        requests = write_requests(server.folder / "requests", self._source, webhooks, time.time())
        return await self._generator(server.port, requests, connections, self._cores.load)


async def _decided(server: Server) -> float | None:
    return None if server.books is None else await server.books.until_decided(DECIDED_WITHIN)


async def _reckon(server: Server, mark: int, sent: int, heard: int) -> None:
    if server.side != CEILING and heard != sent:
        raise LoadFailed(f"{sent} deliveries were answered 200, but the listener was called {heard} times")
    if server.books is not None:
        counted = await server.books.counted(mark)
        if (counted.stored, counted.fired) != (sent, sent):
            raise LoadFailed(f"of {sent} deliveries {counted.stored} are stored and {counted.fired} fired")
