"""Rows 19 and 35: clients without a signature, and good traffic beside them.

A thousand sockets never finish their request; crowds of strangers use as much as they can, one manner after the other.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from msgspec import Struct

from reliability import ROOT
from reliability.checker import check, in_words
from reliability.corpus import items
from reliability.load import Load
from reliability.measures import forget_peak, peak, percentile, resident
from reliability.receivers import trial
from reliability.row import Figures, Result
from reliability.stores import Stores
from reliability.strangers import KINDS
from whereby_trigger.config import foreign_environment

HOST = "127.0.0.1"
PACE = 1.0

CLOSED_WITHIN = 10.0
P99_WITHIN = 0.5
PER_SECOND = 50
GIVE_UP_AFTER = 15.0
MIB = 1024 * 1024
RSS_MAY_GROW = 24 * MIB
WARM_UP = 200


class Manner(Struct, frozen=True):
    """Hold what a slow socket sends first, and the byte that it sends each second, if any."""

    first: bytes
    then: bytes


MANNERS: Mapping[str, Manner] = {
    "trickles its headers": Manner(b"POST / HTTP/1.1\r\nHost: whereby\r\nX-Slow: ", b"a"),
    "trickles its body": Manner(b"POST / HTTP/1.1\r\nHost: whereby\r\nContent-Length: 4000\r\n\r\n", b"{"),
    "says nothing": Manner(b"", b""),
}


class SlowSocket(asyncio.Protocol):
    """Hold one slow connection; `lasted` is how many seconds passed until the server closed it."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.time()
        self.lasted: asyncio.Future[float] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._manner.first)
        self._loop.call_later(PACE, self._send)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lasted.done():
            self.lasted.set_result(self._loop.time() - self._opened)

    def close(self) -> None:
        """Abort the connection; the server has not closed it."""
        self._transport.abort()

    def _send(self) -> None:
        if not self.lasted.done():
            self._transport.write(self._manner.then)
            self._loop.call_later(PACE, self._send)


async def open_slow_sockets(port: int, number: int) -> list[SlowSocket]:
    """Open `number` slow sockets, equally many of each manner."""
    loop, manners = asyncio.get_running_loop(), list(MANNERS.values())

    async def open_one(manner: Manner) -> SlowSocket:
        _, socket = await loop.create_connection(lambda: SlowSocket(manner), HOST, port)
        return socket

    return list(await asyncio.gather(*(open_one(manners[index % len(manners)]) for index in range(number))))


async def run_slow(folder: Path, stores: Stores, *, sockets: int) -> Result:
    """Open `sockets` slow sockets, and send good deliveries until the server has closed them all."""
    load = Load(folder, 1, source=items(1), reuse=False)
    async with trial(folder, stores.new(folder), load) as under_load:
        slow = await open_slow_sockets(load.port, sockets)
        try:
            closed = asyncio.gather(*(socket.lasted for socket in slow))
            async with load.going(PER_SECOND):
                await asyncio.wait({closed}, timeout=GIVE_UP_AFTER)
        finally:
            for socket in slow:
                socket.close()
        took = [answer.seconds for answer in load.each]
        evidence = await under_load.evidence()
    lasted = [socket.lasted.result() for socket in slow if socket.lasted.done()]
    problems = in_words(check(evidence))
    if late := [seconds for seconds in lasted if seconds > CLOSED_WITHIN]:
        problems.append(f"{len(late)} slow sockets were closed after more than 10 s, the last after {max(late):.2f} s")
    if len(lasted) < sockets:
        problems.append(f"{sockets - len(lasted)} slow sockets were not closed at all")
    if load.answers.keys() != {200}:
        problems.append(f"good deliveries were answered {dict(load.answers)}")
    if percentile(took, 99) > P99_WITHIN:
        problems.append(f"good traffic took {percentile(took, 99):.3f} s at the 99th percentile")
    figures: Figures = {
        "slow sockets": sockets,
        "closed after (s), first": round(min(lasted, default=0), 2),
        "closed after (s), last": round(max(lasted, default=0), 2),
        "good deliveries": len(took),
        "p99 (ms)": round(percentile(took, 99) * 1000, 1),
        "slowest (ms)": round(max(took) * 1000, 1),
    }
    return Result(figures, problems)


async def run_crowds(
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
            async with _strangers(load.port, manner, sockets) as opened:
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
    if load.answers.keys() != {200}:
        problems.append(f"signed deliveries were answered {dict(load.answers)}")
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
    before = len(load.each)
    async with load.going(PER_SECOND):
        await asyncio.sleep(seconds)
    return [answer.seconds for answer in load.each[before:]]
