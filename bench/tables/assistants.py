"""Table 5: how long it takes from a success to its assistant, and what it costs to keep a thousand rooms."""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec import Struct

from bench.bodies import bodies
from bench.cores import module, on, serving
from bench.load import LoadFailed
from bench.open_loop import FIGURES, OpenLoop, cells
from bench.outcome import Cell, Grid, Outcome, Problems
from bench.programs import read_notes
from bench.programs.host import COROUTINE, PROCESS, command
from bench.sides import NAMES, NOTES, POSTGRES, SQLITE, Setting, Side
from bench.stores import PREFIX
from reliability.measures import cpu_seconds, family
from whereby_trigger.testing.program import Program, ProgramFailed, until

RUNNING = "running"
RUNNING_WITHIN = 60.0

SHORT_LEASE, LEASE = 3.0, 30.0
RENEWALS = 6
"""How often a lease is renewed in the time it lasts, as the docs say."""

FILL_PER_SECOND = {COROUTINE: 200.0, PROCESS: 10.0}
SETTLED = 2.0
LOOK = 0.002


class Host(Struct, frozen=True):
    """Hold a replica, its sender, and the folder of its notes."""

    process: Program
    sender: OpenLoop
    folder: Path

    async def fill(self, rooms: int, per_second: float) -> None:
        """Send one join to each of `rooms` new rooms, and wait until an assistant runs in each; raises LoadFailed."""
        already = len(self._running())
        deliveries = await self.sender.evenly(per_second, rooms / per_second)
        if refused := [one.refusal for one in deliveries if one.refusal]:
            raise LoadFailed(f"{len(refused)} joins were answered {refused[0]}")
        if not await until(lambda: len(self._running()) >= already + rooms, RUNNING_WITHIN):
            raise LoadFailed(f"an assistant is missing in a room {RUNNING_WITHIN:g} s after its join")

    async def stop(self) -> list[float]:
        """Stop it and its assistants; return the milliseconds from each success to its assistant's first line."""
        running = self._running()
        if code := await self.process.stop():
            raise ProgramFailed(f"a replica ended with {code}; it said:\n{self.process.last_words}")
        told = read_notes(self.folder / NOTES).times
        return [(ran - told[room]) / 1e6 for room, ran in running.items()]

    def _running(self) -> dict[str, int]:
        file = self.folder / RUNNING
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()] if file.exists() else []
        return {room: int(ran) for ran, room in lines}


@asynccontextmanager
async def hosting(setting: Setting, side: Side, *options: str) -> AsyncIterator[Host]:
    """Run a replica with a new store, on the first server's core, with options of `programs.host`."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX)))
        url = stack.enter_context(setting.stores.new(side))
        told = ("--store", url, "--notes", str(folder / NOTES), "--running", str(folder / RUNNING))
        command = module("bench.programs.host", *told, *options)
        process = await stack.enter_async_context(serving(command, setting.cores.server))
        sender = await stack.enter_async_context(OpenLoop(await process.listening(), bodies(rooms=10**6)))
        yield Host(process, sender, folder)


class Dose(Struct, frozen=True):
    """Hold how much to measure; by default what the page reports.

    `watched` is how many seconds the CPU time of a replica without deliveries is measured.
    """

    coroutines: int = 500
    coroutines_per_second: float = 20.0
    commands: int = 100
    commands_per_second: float = 4.0
    kept: int = 1000
    watched: float = 30.0
    sides: tuple[Side, ...] = (SQLITE, POSTGRES)


async def run(setting: Setting, dose: Dose) -> Outcome:
    """Start assistants at an even pace, in each form; then keep many rooms, and measure what that costs."""
    problems = Problems()
    starts: list[list[Cell]] = [["the same program, started directly", dose.commands, *cells(_bare(setting, dose))]]
    costs: list[list[Cell]] = []
    for side in dose.sides:
        with problems.of(NAMES[side]):
            starts += await _starts(setting, side, dose)
            costs += await _costs(setting, side, dose)
    return Outcome(
        [
            Grid(
                ("", "assistants", *(f"{figure} (ms)" for figure in FIGURES)),
                starts,
                "From the success to the first line",
            ),
            Grid(
                ("", "lease (s)", "CPU (% of a core)", "more per renewal (ms)"),
                costs,
                "What a replica takes while nothing is delivered",
            ),
        ],
        [],
        problems.all,
    )


async def _starts(setting: Setting, side: Side, dose: Dose) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for form, count, per_second in (
        (COROUTINE, dose.coroutines, dose.coroutines_per_second),
        (PROCESS, dose.commands, dose.commands_per_second),
    ):
        async with hosting(setting, side, "--assistant", form) as host:
            await host.fill(count, per_second)
            rows.append([f"{NAMES[side]}, {form}", count, *cells(await host.stop())])
    return rows


async def _costs(setting: Setting, side: Side, dose: Dose) -> list[list[Cell]]:
    """Measure a replica without a room, with many, with a lease so short that its renewals show, and with processes."""
    none, _ = await _kept(setting, side, dose, 0, COROUTINE, LEASE)
    many, _ = await _kept(setting, side, dose, dose.kept, COROUTINE, LEASE)
    short, _ = await _kept(setting, side, dose, dose.kept, COROUTINE, SHORT_LEASE)
    more = (short - many) / (RENEWALS / SHORT_LEASE - RENEWALS / LEASE) * 1000
    few, guards = await _kept(setting, side, dose, dose.commands, PROCESS, LEASE)
    name, rooms = NAMES[side], f"{dose.kept:,} rooms, coroutines"
    return [
        [f"{name}, no room", LEASE, f"{none:.2%}", None],
        [f"{name}, {rooms}", LEASE, f"{many:.2%}", None],
        [f"{name}, {rooms}", SHORT_LEASE, f"{short:.2%}", f"{more:.2f}"],
        [f"{name}, {dose.commands:,} rooms, processes", LEASE, f"{few:.2%}, and {guards:.2%} their guards", None],
    ]


async def _kept(setting: Setting, side: Side, dose: Dose, rooms: int, form: str, lease: float) -> tuple[float, float]:
    """Return the share of a core used by a replica that keeps `rooms` rooms, and by its child processes."""
    async with hosting(setting, side, "--assistant", form, "--lease-ttl", str(lease)) as host:
        if rooms:
            await host.fill(rooms, FILL_PER_SECOND[form])
        await asyncio.sleep(SETTLED)
        supervisor, *others = family(host.process.pid)
        before = cpu_seconds([supervisor]), cpu_seconds(others)
        await asyncio.sleep(dose.watched)
        after = cpu_seconds([supervisor]), cpu_seconds(others)
        await host.stop()
    own, guards = ((now - then) / dose.watched for now, then in zip(after, before, strict=True))
    return own, guards


def _bare(setting: Setting, dose: Dose) -> list[float]:
    """Start the assistant's program alone, `commands` times; return the milliseconds to its first line."""
    took: list[float] = []
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        running = Path(folder) / RUNNING
        for number in range(dose.commands):
            began = time.monotonic_ns()
            with on(setting.cores.server):
                process = subprocess.Popen(command(str(running)))
            while not running.exists() or running.read_bytes().count(b"\n") <= number:
                time.sleep(LOOK)
            process.kill()
            process.wait()
            took.append((int(running.read_text(encoding="ascii").splitlines()[-1].split()[0]) - began) / 1e6)
    return took
