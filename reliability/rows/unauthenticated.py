"""Row 35: crowds of clients without a signature, one manner after the other, and signed traffic beside them."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from reliability.campaign import trial
from reliability.checker import check, in_words
from reliability.corpus import items
from reliability.load import Load
from reliability.measures import forget_peak, peak, percentile, resident
from reliability.process import ROOT
from reliability.row import Figures, Result
from reliability.stores import Stores
from reliability.strangers import KINDS
from whereby_trigger.config import foreign_environment

MIB = 1024 * 1024
RSS_MAY_GROW = 24 * MIB
P99_WITHIN = 0.5
PER_SECOND = 50
WARM_UP = 200


async def run(
    folder: Path,
    stores: Stores,
    *,
    sockets: int,
    seconds: float,
    p99_within: float = P99_WITHIN,
    warm_up: int = WARM_UP,
) -> Result:
    """Open `sockets` connections of each kind of stranger for `seconds`, and watch memory and signed traffic.

    A kind that has several manners spends as long on each of them.
    """
    load = Load(folder, 1, source=items(1), reuse=False)
    figures: Figures = {"sockets at a time": sockets, "seconds for each kind": seconds}
    problems = list[str]()
    async with trial(folder, stores.new(folder), load) as under_load:
        receiver = under_load.receiver
        await _send_for(warm_up / PER_SECOND, load)
        turns = [(manner, seconds / len(manners)) for manners in KINDS.values() for manner in manners]
        for manner, lasts in turns:
            before = resident(receiver.pid)
            await asyncio.to_thread(forget_peak, receiver.pid)
            async with _strangers(load.sender.port, manner, sockets) as opened:
                took = await _send_for(lasts, load)
                came = opened[-1]
            grown, p99 = peak(receiver.pid) - before, percentile(took, 99)
            figures |= {
                f"{manner}: seconds": lasts,
                f"{manner}: connections": came,
                f"{manner}: RSS grew by (MiB)": round(grown / MIB, 1),
                f"{manner}: p99 (ms)": round(p99 * 1000, 1),
            }
            if grown > RSS_MAY_GROW:
                problems.append(f"{manner}: the receiver's memory grew by {grown / MIB:.1f} MiB")
            if p99 > p99_within:
                problems.append(f"{manner}: signed traffic took {p99:.3f} s at the 99th percentile")
            if came < sockets * 0.9:
                problems.append(f"{manner}: only {came} of {sockets} connections could be opened")
        evidence = await under_load.evidence()
    problems += in_words(check(evidence))
    if load.sender.answers.keys() != {200}:
        problems.append(f"signed deliveries were answered {dict(load.sender.answers)}")
    return Result(figures | {"signed deliveries": len(load.items)}, problems)


@asynccontextmanager
async def _strangers(port: int, manner: str, sockets: int) -> AsyncIterator[list[int]]:
    """Run strangers for the block; yield a list whose last item is how many connections they have opened."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reliability.strangers", str(port), manner, str(sockets)),
        cwd=ROOT,
        env=foreign_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    output, said = process.stdout, [int(await process.stdout.readline() or 0)]

    async def listen() -> None:
        async for line in output:
            said.append(int(line))

    listening = asyncio.create_task(listen())

    try:
        yield said
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening


async def _send_for(seconds: float, load: Load) -> list[float]:
    """Send signed deliveries at an even pace; return how long each took."""
    before = len(load.sender.each)
    async with load.going(PER_SECOND):
        await asyncio.sleep(seconds)
    return [answer.seconds for answer in load.sender.each[before:]]
