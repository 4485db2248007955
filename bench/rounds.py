"""A round: a load on one server, or on several that share a store; and series of rounds, with the figures for them.

A round counts only if all of it was processed.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from msgspec import Struct

from bench.bodies import Body, write_requests
from bench.load import Load, LoadFailed, together
from bench.outcome import Cell, Grid
from bench.sides import CEILING, POSTGRES, Server, Setting
from reliability.measures import Usage, usage

DECIDED_WITHIN = 120.0
BACKLOG_WITHIN = 1.0
"""The most seconds of work that may be left when the last delivery is answered."""

WARM_UP = 2000

SPEED = "webhooks/s", "lowest to highest"
LATENCIES = "p50 (ms)", "p99 (ms)", "slowest (ms)"
CHECKS = (
    "backlog at the end (s), at most",
    "server's CPU per webhook (µs)",
    "database's (µs)",
    "load's core busy, at most",
    "server's core taken by others, at most",
)
CHECKS_TITLE = "How far these figures can be trusted: all but the CPU times are the worst of the rounds"

GENERATOR_AT_MOST = 0.9
OTHERS_AT_MOST = 0.1


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


class Series:
    """Collect the rounds of one kind, by their number; rounds of other kinds have the same numbers."""

    def __init__(self) -> None:
        self._rounds: dict[int, Round] = {}

    def add(self, number: int, round: Round) -> None:
        self._rounds[number] = round

    def median(self, figure: Callable[[Round], float]) -> float:
        return median(map(figure, self._rounds.values()))

    def most(self, figure: Callable[[Round], float]) -> float:
        return max(map(figure, self._rounds.values()))

    @property
    def speed(self) -> float:
        """The median of webhooks per second."""
        return self.median(lambda round: round.per_second)

    def speeds(self) -> list[Cell]:
        """Return the cells under `SPEED`."""
        speeds = [round.per_second for round in self._rounds.values()]
        return [round(self.speed), f"{min(speeds):,.0f} to {max(speeds):,.0f}"]

    def times(self, other: "Series | None") -> float | None:
        """Return this speed divided by the other's, or None if no round has both.

        It is the median of the rounds' own ratios: what slows a machine for minutes slows both sides of a round.
        """
        if other is None:
            return None
        both = self._rounds.keys() & other._rounds.keys()
        ratios = [self._rounds[number].per_second / other._rounds[number].per_second for number in both]
        return median(ratios) if ratios else None

    def ratio_to(self, other: "Series | None") -> Cell:
        """Return this speed divided by the other's, as a cell."""
        times = self.times(other)
        return None if times is None else f"{times:.2f}"

    def latencies(self) -> list[Cell]:
        """Return the cells under `LATENCIES`."""
        p50, p99 = self.median(lambda round: round.p50), self.median(lambda round: round.p99)
        return [round(p50, 1), round(p99, 1), round(self.most(lambda round: round.slowest), 1)]

    def checks(self) -> list[Cell]:
        """Return the cells under `CHECKS`."""
        database = self.median(lambda round: round.database_cpu)
        return [
            f"{self.most(lambda round: round.backlog):.2f}",
            round(self.median(lambda round: round.server_cpu)),
            round(database) or None,
            f"{self.most(lambda round: round.generator_busy):.0%}",
            f"{self.most(lambda round: round.others):.0%}",
        ]


def trust(named: Mapping[str, Series]) -> Grid:
    """Return how far the figures of each series can be trusted, a row each."""
    return Grid(("", *CHECKS), [[name, *series.checks()] for name, series in named.items()], CHECKS_TITLE)


def doubts(named: Mapping[str, Series]) -> Iterator[str]:
    """Yield a warning if the generator may have set the pace, or if the machine was not quiet."""
    for name, series in named.items():
        busy, others = series.most(lambda round: round.generator_busy), series.most(lambda round: round.others)
        if busy > GENERATOR_AT_MOST:
            yield f"{name}: the load generator was busy for {busy:.0%} of the time, and may have set the pace"
        if others > OTHERS_AT_MOST:
            yield f"{name}: others took {others:.0%} of the server's core, so that its speed says little"
