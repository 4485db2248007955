"""What open Live pages of the inspector cost while a trigger takes 200 deliveries a second, in CPU time and memory.

The pages are served by a process of their own beside the trigger, `whereby-trigger inspect`, so that its CPU time is
theirs alone: in the trigger's own process it would drown in what the deliveries take. It is in seconds for each second:
on a busy machine, too. Run it by `python -m bench.live_pages`, with `--seconds` for how long each is measured.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from bench.bodies import bodies
from bench.open_loop import OpenLoop
from bench.secret import SECRET
from reliability.measures import cpu_seconds, resident
from whereby_trigger.testing.program import Program

PER_SECOND = 200.0
PAGES = (0, 1, 50)
ROUNDS = 3
LONGEST = 600.0
PROGRAM = """
from whereby_trigger import Trigger

trigger = Trigger()


@trigger.when("room.client.joined")
def nobody(webhook):
    return False
"""


async def read(client: httpx.AsyncClient, url: str, sizes: list[int]) -> None:
    """Read a page's stream to its end, and count its bytes."""
    async with client.stream("GET", f"{url}live") as answer:
        async for chunk in answer.aiter_bytes():
            sizes.append(len(chunk))


async def measure(port: int, url: str, pid: int, pages: int, seconds: float) -> tuple[float, int]:
    """Return the CPU time for each second of a process with so many open pages, and the bytes that these read."""
    sizes: list[int] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=LONGEST, limits=limits) as client, asyncio.TaskGroup() as group:
        reading = [group.create_task(read(client, url, sizes)) for _ in range(pages)]
        load = OpenLoop(port, bodies())
        await load.evenly(PER_SECOND, 2)
        before, began = cpu_seconds([pid]), asyncio.get_running_loop().time()
        sizes.clear()
        await load.evenly(PER_SECOND, seconds)
        took = asyncio.get_running_loop().time() - began
        used = cpu_seconds([pid]) - before
        for task in reading:
            task.cancel()
        load.sender.close()
    return used / took, sum(sizes)


def memory(program: Program) -> str:
    """Return the resident memory of a process in words."""
    return f"{resident(program.pid) / 2**20:.1f} MiB resident"


@contextlib.asynccontextmanager
async def started(folder: str, *arguments: str) -> AsyncIterator[tuple[Program, int]]:
    """Yield a running command of ours, and the first port that it names."""
    command = [sys.executable, "-m", "whereby_trigger", *arguments]
    program = await Program.start(command, cwd=Path(folder), env={"WHEREBY_WEBHOOK_SECRET": SECRET})
    try:
        yield program, await program.listening()
    finally:
        await program.stop()


async def run(seconds: float) -> None:
    """Measure a trigger, and beside it the process that shows its store."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(PROGRAM, encoding="utf-8")
        start = ("start", "app.py", "--host", "127.0.0.1", "--port", "0")
        async with started(folder, *start, "--inspector", "127.0.0.1:0") as (served, _):
            print(f"a trigger that serves an inspector that nobody has opened: {memory(served)}", flush=True)
        async with started(folder, *start) as (trigger, port):
            print(f"a trigger without an inspector: {memory(trigger)}", flush=True)
            used, _ = await measure(port, "", trigger.pid, 0, seconds)
            print(f"at {PER_SECOND:g} deliveries a second: {used:.4f} CPU s a second, {memory(trigger)}", flush=True)
            async with started(folder, "inspect", "app.py", "--port", "0") as (inspector, shown):
                for pages in PAGES:
                    each = [
                        await measure(port, f"http://127.0.0.1:{shown}/", inspector.pid, pages, seconds)
                        for _ in range(ROUNDS)
                    ]
                    middle = sorted(used for used, _ in each)[ROUNDS // 2]
                    told = ", ".join(f"{used:.4f}" for used, _ in each) + f"; {each[-1][1] / 1000:.0f} kB read"
                    print(f"  {pages:2} pages: {middle:.4f} CPU s a second ({told})", flush=True)
                print(f"  the inspector's process: {memory(inspector)}", flush=True)


def main() -> None:
    """Measure no, one and many open pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    asyncio.run(run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
