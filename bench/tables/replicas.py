"""Tables 6 and 7: processes that share a store; and how many replicas it takes until PostgreSQL is the limit."""

import asyncio
from contextlib import AsyncExitStack
from statistics import median

import msgspec
from msgspec import Struct

from bench.bodies import bodies
from bench.cores import module, pinned
from bench.load import LoadFailed
from bench.outcome import Cell, Grid, Outcome, Problems
from bench.rounds import LATENCIES, SPEED, Ring, Round, Series, doubts, trust
from bench.sides import NAMES, POSTGRES, SQLITE, Setting, Side
from reliability import ROOT
from reliability.measures import cpu_seconds


class CoresDose(Struct, frozen=True):
    """Hold how much to measure; by default what the page reports."""

    webhooks: int = 100_000
    rounds: int = 3
    connections: int = 64
    processes: tuple[int, ...] = (1, 2)
    sides: tuple[Side, ...] = (SQLITE, POSTGRES)


async def run_cores(setting: Setting, dose: CoresDose) -> Outcome:
    """Load every number of processes on every side in turn, once per round."""
    problems, ring = Problems(), Ring(setting, bodies())
    series: dict[tuple[Side, int], Series] = {}
    for number in range(dose.rounds):
        for side in dose.sides:
            for processes in dose.processes:
                with problems.of(f"{NAMES[side]}, {processes}"):
                    measured = await several(setting, ring, side, processes, dose.webhooks, dose.connections)
                    series.setdefault((side, processes), Series()).add(number, measured)
    names = {(side, processes): f"{NAMES[side]}, {processes}" for side, processes in series}
    named = {names[entry]: one for entry, one in series.items()}
    figures = [
        [names[entry], *one.speeds(), one.ratio_to(series.get((entry[0], 1))), *one.latencies()]
        for entry, one in series.items()
    ]
    grids = [Grid(("processes", *SPEED, "× one process", *LATENCIES), figures), trust(named)]
    return Outcome(grids, [], problems.all, [*shared(setting, max(dose.processes)), *doubts(named)])


class Dose(Struct, frozen=True):
    """Hold how much to measure; by default what the page reports.

    `alone` are numbers of connections for PostgreSQL without replicas, with `in_flight` webhooks under way.
    """

    webhooks: int = 100_000
    rounds: int = 3
    connections: int = 64
    replicas: tuple[int, ...] = (1, 2, 3)
    alone: tuple[int, ...] = (1, 2, 4)
    in_flight: int = 256


class Alone(Struct, frozen=True):
    """Hold what PostgreSQL did without replicas: webhooks per second, its CPU per webhook in µs, and its load."""

    per_second: float
    cpu: float
    busy: float


async def run(setting: Setting, dose: Dose) -> Outcome:
    """Load every number of replicas in turn, and PostgreSQL alone over each number of connections, once per round."""
    problems, ring = Problems(), Ring(setting, bodies())
    served: dict[int, Series] = {}
    alone: dict[int, list[Alone]] = {}
    for number in range(dose.rounds):
        for replicas in dose.replicas:
            with problems.of(f"{replicas} replicas"):
                measured = await several(setting, ring, POSTGRES, replicas, dose.webhooks, dose.connections)
                served.setdefault(replicas, Series()).add(number, measured)
        for connections in dose.alone:
            with problems.of(f"PostgreSQL by itself, {connections} connections"):
                alone.setdefault(connections, []).append(await _alone(setting, connections, dose))
    grids = [
        _replicas(served),
        _alone_grid(served, alone),
        _limit(served, alone),
        trust(named := {f"{replicas} replicas": one for replicas, one in served.items()}),
    ]
    return Outcome(grids, [], problems.all, [*shared(setting, max(dose.replicas)), *doubts(named)])


async def _alone(setting: Setting, connections: int, dose: Dose) -> Alone:
    """Run a program on the first server's core that stores and decides webhooks through the store's methods."""
    told = ("--webhooks", str(dose.webhooks), "--replicas", str(connections), "--in-flight", str(dose.in_flight))
    with setting.stores.new(POSTGRES) as url:
        before = cpu_seconds(setting.stores.server_pids)
        process = await asyncio.create_subprocess_exec(
            *pinned(setting.cores.server, module("bench.programs.storing", "--store", url, *told)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, words = await process.communicate()
        if process.returncode:
            raise LoadFailed(f"storing failed: {words.decode(errors='replace')}")
        used = cpu_seconds(setting.stores.server_pids) - before
    per_second = msgspec.json.decode(said, type=float)
    return Alone(per_second, used / dose.webhooks * 1e6, used * per_second / dose.webhooks)


def _replicas(served: dict[int, Series]) -> Grid:
    rows: list[list[Cell]] = []
    for replicas, one in served.items():
        busy = f"{one.median(lambda round: round.database_busy):.0%}"
        rows.append([replicas, *one.speeds(), one.ratio_to(served.get(1)), *one.latencies(), busy])
    return Grid(("replicas", *SPEED, "× one replica", *LATENCIES, "PostgreSQL, of a core"), rows)


def _alone_grid(served: dict[int, Series], alone: dict[int, list[Alone]]) -> Grid:
    rows: list[list[Cell]] = []
    for connections, found in alone.items():
        speed = median(one.per_second for one in found)
        rows.append(
            [
                connections,
                round(speed),
                f"{speed / served[1].speed:.2f}" if 1 in served else None,
                f"{median(one.busy for one in found):.0%}",
                round(median(one.cpu for one in found)),
            ]
        )
    columns = ("connections", "webhooks/s", "× one replica", "PostgreSQL, of a core", "its CPU per webhook (µs)")
    return Grid(columns, rows, "PostgreSQL by itself: stored and decided by a program that does nothing else")


def _limit(served: dict[int, Series], alone: dict[int, list[Alone]]) -> Grid:
    """Return how many replicas, each with a core to itself, one core of PostgreSQL can serve."""
    rows: list[list[Cell]] = []
    if 1 in served and alone:
        most = max(median(one.per_second for one in found) for found in alone.values())
        rows.append(["the most that PostgreSQL did by itself", f"{most / served[1].speed:.1f}"])
    if 1 in served:
        own, database = (served[1].median(figure) for figure in (_server_cpu, _database_cpu))
        rows.append(["by the CPU time of both, one core of PostgreSQL", f"{own / database:.1f}" if database else None])
    return Grid(("", "× one replica"), rows, "Where PostgreSQL is the limit")


def _server_cpu(round: Round) -> float:
    return round.server_cpu


def _database_cpu(round: Round) -> float:
    return round.database_cpu


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
