"""What the inspector costs the trigger that serves it, in CPU time and memory, while deliveries come.

Off: what a webhook takes in a trigger without an inspector, in one that serves an inspector that nobody has opened, and
in one that cannot import the inspector. The three run side by side and take their deliveries in turns.

Open: what Live pages add in the trigger's own process, at 200 deliveries a second. Pages are opened and closed again
and again, and each time with them is compared with the time without them just before: so what else the machine does
meanwhile falls out. The figures are medians.

CPU time is that of the whole process, with all its threads, to the nanosecond, so they hold on a busy machine too. Run
it by `python -m bench.live_pages`, with `--rounds`, `--seconds` and `--webhooks` for more or less of it. Needs Linux.
"""

import argparse
import asyncio
import contextlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from msgspec import Struct

from bench.bodies import Body, bodies, write_requests
from bench.load import closed_loop
from bench.open_loop import OpenLoop
from bench.programs import SECRET
from reliability.measures import precise_cpu_seconds, resident
from whereby_trigger.testing.program import Program, until

PER_SECOND = 200.0
PAGES = (1, 50)
SETTLED = 2.0
"""Seconds after pages were opened or closed until that work is over and they only follow."""

CONNECTIONS = 16
"""Connections for the deliveries that compare the three triggers."""

STARTS = 3
"""Starts of each of the three: the memory layout of a process changes its speed by a percent or two."""

DECIDED = 0.3
"""Seconds after the last answer until its webhook is decided."""

PROGRAM = """
from whereby_trigger import Trigger

trigger = Trigger()


@trigger.when("room.client.joined")
async def nobody(webhook):
    return False
"""
WITHOUT = 'import sys\n\nsys.modules["whereby_trigger.inspector"] = None\n'
OFF, SERVED, MISSING = "inspector off", "served, nobody has opened it", "cannot be imported"
INSPECTOR = re.compile(rb"inspector at http://127\.0\.0\.1:([0-9]+)/")
REQUEST = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"


class Served(Struct):
    """Hold a running trigger, its port, and its inspector's port, or 0."""

    program: Program
    port: int
    inspector: int = 0

    @property
    def pid(self) -> int:
        return self.program.pid


@contextlib.asynccontextmanager
async def started(folder: Path, *arguments: str, program: str = PROGRAM) -> AsyncIterator[Served]:
    """Start a trigger with its own store for an `async with` block."""
    folder.mkdir()
    Path(folder, "app.py").write_text(program, encoding="utf-8")
    found: list[int] = []

    def heard(line: bytes) -> None:
        found.extend(int(port) for port in INSPECTOR.findall(line))

    command = [sys.executable, "-m", "whereby_trigger", "start", "app.py", "--host", "127.0.0.1", "--port", "0"]
    env = {"WHEREBY_WEBHOOK_SECRET": SECRET, "PYTHONHASHSEED": "0"}
    running = await Program.start([*command, *arguments], cwd=folder, env=env, heard=heard)
    try:
        served = Served(running, await running.listening())
        if arguments:
            served.inspector = (await until(lambda: found, 10))[0]
        yield served
    finally:
        await running.stop()


async def each_takes(served: Served, source: Iterator[Body], folder: Path, webhooks: int) -> float:
    """Return the CPU seconds that each of some webhooks takes."""
    requests = write_requests(folder / "requests", source, webhooks, time.time())
    before = precise_cpu_seconds(served.pid)
    await closed_loop(served.port, requests, CONNECTIONS, 0)
    await asyncio.sleep(DECIDED)
    return (precise_cpu_seconds(served.pid) - before) / webhooks


async def compare(folder: Path, rounds: int, webhooks: int) -> None:
    """Print the CPU time per webhook and the memory with the inspector off, served, and missing."""
    source = bodies()
    took: dict[str, list[float]] = {OFF: [], SERVED: [], MISSING: []}
    memory: dict[str, list[int]] = {OFF: [], SERVED: [], MISSING: []}
    for start in range(STARTS):
        async with (
            started(folder / f"off-{start}") as off,
            started(folder / f"served-{start}", "--inspector", "127.0.0.1:0") as served,
            started(folder / f"missing-{start}", program=WITHOUT + PROGRAM) as missing,
        ):
            kinds = {OFF: off, SERVED: served, MISSING: missing}
            for each in kinds.values():
                await each_takes(each, source, folder, webhooks)
            for number in range(rounds):
                # The first one measured is always the only one with none before it, so the order changes each round.
                order = list(kinds)[number % 3 :] + list(kinds)[: number % 3]
                for kind in order:
                    took[kind].append(await each_takes(kinds[kind], source, folder, webhooks))
            for kind, each in kinds.items():
                memory[kind].append(resident(each.pid))
    print(f"CPU a webhook and memory after as many, medians of {STARTS} starts with {rounds} rounds each:")
    for kind in took:
        ratio = statistics.median(a / b for a, b in zip(took[kind], took[MISSING], strict=True))
        more = statistics.median(memory[kind]) / statistics.median(memory[MISSING])
        own, each_memory = statistics.median(took[kind]), statistics.median(memory[kind])
        told = f"{1e6 * own:6.1f} µs ({ratio:.3f} of what it takes without the code)"
        print(f"  {kind:28} {told}, {each_memory / 1e6:.1f} MB ({more:.3f})", flush=True)


async def follow(port: int, sizes: list[int]) -> None:
    """Read a Live page's stream until cancelled, and record the sizes of what came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(REQUEST % port)
        while data := await reader.read(65536):
            sizes.append(len(data))
    finally:
        writer.close()


class Used(Struct, frozen=True):
    """Hold a trigger's share of a core, from 0 to 1, and the deliveries per second meanwhile."""

    share: float
    pace: float


async def used(served: Served, load: OpenLoop, seconds: float) -> Used:
    """Measure a trigger's share of a core under load."""
    before, began = precise_cpu_seconds(served.pid), time.monotonic()
    deliveries = await load.evenly(PER_SECOND, seconds)
    took = time.monotonic() - began
    return Used((precise_cpu_seconds(served.pid) - before) / took, len(deliveries) / took)


async def with_pages(served: Served, load: OpenLoop, pages: int, seconds: float) -> tuple[Used, int]:
    """Measure the same with `pages` open pages, and count the bytes sent to them."""
    sizes: list[int] = []
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(follow(served.inspector, sizes)) for _ in range(pages)]
        await load.evenly(PER_SECOND, SETTLED)
        sizes.clear()
        took = await used(served, load, seconds)
        for task in following:
            task.cancel()
    await load.evenly(PER_SECOND, SETTLED)
    return took, sum(sizes)


async def open_and_close(folder: Path, rounds: int, seconds: float) -> None:
    """Print what open pages add to the trigger that serves them."""
    async with (
        started(folder / "open", "--inspector", "127.0.0.1:0") as served,
        OpenLoop(served.port, bodies()) as load,
    ):
        await load.evenly(PER_SECOND, SETTLED)
        before = resident(served.pid)
        await with_pages(served, load, 1, 1.0)
        print(f"{before / 1e6:.1f} MB before a page was opened, {resident(served.pid) / 1e6:.1f} MB after")
        print(f"share of a core at {PER_SECOND:g} deliveries a second, medians of {rounds} rounds of {seconds:g} s:")
        for pages in PAGES:
            pairs: list[tuple[Used, Used]] = []
            sent = 0
            for _ in range(rounds):
                without = await used(served, load, seconds)
                taken, sent = await with_pages(served, load, pages, seconds)
                pairs.append((without, taken))
            low, middle, high = statistics.quantiles([taken.share - without.share for without, taken in pairs], n=4)
            alone = statistics.median(without.share for without, _ in pairs)
            # On a busy machine the load does not keep its pace, and all shares are too small.
            slowest = min(one.pace for pair in pairs for one in pair)
            print(
                f"  {pages:2} pages add {100 * middle:.2f} % to {100 * alone:.2f} % (in half of the rounds between "
                f"{100 * low:.2f} and {100 * high:.2f} %); {sent / 1000:.0f} kB sent; at least {slowest:.0f} a second",
                flush=True,
            )


async def run(rounds: int, seconds: float, webhooks: int) -> None:
    """Measure a trigger with its inspector off and on, and with pages open."""
    with tempfile.TemporaryDirectory() as folder:
        await compare(Path(folder), rounds, webhooks)
        await open_and_close(Path(folder), rounds, seconds)


def main() -> None:
    """Measure the inspector off, and with one and many open pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, choices=range(2, 1000), metavar="ROUNDS")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--webhooks", type=int, default=2000)
    asked = parser.parse_args()
    asyncio.run(run(asked.rounds, asked.seconds, asked.webhooks))


if __name__ == "__main__":
    main()
