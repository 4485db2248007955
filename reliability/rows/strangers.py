"""Rows 19 and 35: clients without a signature, and good traffic beside them.

A thousand sockets never finish their request. And crowds of strangers use as much as they can, one manner after the
other, in a separate process: `python -m reliability.rows.strangers PORT MANNER SOCKETS`, until killed. A stranger's
connection that the server closes is opened again; each line that a crowd prints says how many it has opened.
"""

import asyncio
import contextlib
import resource
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import uvloop
from msgspec import Struct

from reliability import ROOT
from reliability.checker import check, in_words
from reliability.corpus import items
from reliability.load import Load
from reliability.measures import forget_peak, peak, percentile, resident
from reliability.receivers import trial
from reliability.row import Figures, Result, found
from reliability.stores import Stores
from whereby_trigger.config import foreign_environment

HOST = "127.0.0.1"
PER_SECOND = 50
P99_WITHIN = 0.5

PACE = 1.0
CLOSED_WITHIN = 10.0
GIVE_UP_AFTER = 15.0

MIB = 1024 * 1024
RSS_MAY_GROW = 24 * MIB
WARM_UP = 200
AGAIN_AFTER = 10.0
"""Seconds after which a stranger's connection that was closed, or refused, is opened again."""

AT_ONCE = 200
"""Strangers' connections that are being opened at a time."""

RESERVE = 100
"""File descriptors reserved for what is not a connection."""

SAY_EVERY = 0.2

LOOKS = b"GET / HTTP/1.1\r\nHost: whereby\r\n\r\n" * 2000
BODY = 64 * 1024
ANNOUNCED = b"POST / HTTP/1.1\r\nHost: whereby\r\nContent-Length: %d\r\n\r\n" % BODY
CHUNKED = b"POST / HTTP/1.1\r\nHost: whereby\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = CHUNKED + b"2\r\n\r\n\r\n" * (BODY // 16) + b"2\r\nab\r\n" * (BODY // 16)
RESET = struct.pack("ii", 1, 0)


class Manner(Struct, frozen=True):
    """Hold what a client sends first, what it then sends again and again, how often, and whether it reads answers."""

    first: bytes
    then: bytes = b""
    every: float = PACE
    reads: bool = True


SLOW: Mapping[str, Manner] = {
    "trickles its headers": Manner(b"POST / HTTP/1.1\r\nHost: whereby\r\nX-Slow: ", b"a"),
    "trickles its body": Manner(b"POST / HTTP/1.1\r\nHost: whereby\r\nContent-Length: 4000\r\n\r\n", b"{"),
    "says nothing": Manner(b""),
}
"""The manners of slow sockets."""

CROWDS: Mapping[str, Mapping[str, Manner]] = {
    "requests ahead": {"sends requests ahead": Manner(LOOKS, LOOKS, 0.1)},
    "answers": {"takes no answers": Manner(LOOKS, LOOKS, 0.1, reads=False)},
    "bodies": {
        "announces a body": Manner(ANNOUNCED),
        "sends all of a body but its last byte": Manner(ANNOUNCED + b"x" * (BODY - 1)),
        "sends a body in chunks of two bytes": Manner(CHUNKS),
        "sends a body where none belongs": Manner(ANNOUNCED.replace(b"POST", b"GET") + b"x" * (BODY - 1)),
    },
    "silence": {"says nothing": Manner(b"")},
}
"""The manners of each kind of stranger."""


class Client(asyncio.Protocol):
    """Hold one connection, and call `lost` when the server has closed it."""

    def __init__(self, manner: Manner, lost: Callable[[], None]) -> None:
        self._manner = manner
        self._lost = lost
        self._writing = True
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if not self._manner.reads:
            self._transport.pause_reading()
        self._transport.write(self._manner.first)
        self._loop.call_later(self._manner.every, self._send)

    def pause_writing(self) -> None:
        self._writing = False

    def resume_writing(self) -> None:
        self._writing = True
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()

    def close(self) -> None:
        """Abort the connection; the server has not closed it."""
        self._transport.abort()

    def _send(self) -> None:
        if self._transport.is_closing() or not self._writing or not self._manner.then:
            return
        self._transport.write(self._manner.then)
        self._loop.call_later(self._manner.every, self._send)


async def run_slow(folder: Path, stores: Stores, *, sockets: int) -> Result:
    """Open `sockets` slow sockets, and send good deliveries until the server has closed them all."""
    load = Load(folder, 1, source=items(1), reuse=False)
    async with trial(folder, stores.new(folder), load) as under_load:
        slow = await _open_slow(load.port, sockets)
        try:
            closed = asyncio.gather(*slow.values())
            async with load.going(PER_SECOND):
                await asyncio.wait({closed}, timeout=GIVE_UP_AFTER)
        finally:
            for client in slow:
                client.close()
        took = [answer.seconds for answer in load.each]
        evidence = await under_load.evidence()
    lasted = [one.result() for one in slow.values() if one.done()]
    problems = in_words(check(evidence))
    if late := [seconds for seconds in lasted if seconds > CLOSED_WITHIN]:
        problems.append(f"{len(late)} slow sockets were closed after more than 10 s, the last after {max(late):.2f} s")
    problems += found(sockets - len(lasted), "slow sockets were not closed at all")
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


async def _open_slow(port: int, number: int) -> dict[Client, asyncio.Future[float]]:
    """Open slow sockets, equally many of each manner; return how long it will have taken the server to close each."""
    loop, manners = asyncio.get_running_loop(), list(SLOW.values())

    async def open_one(manner: Manner) -> tuple[Client, asyncio.Future[float]]:
        lasted: asyncio.Future[float] = loop.create_future()
        opened = loop.time()
        _, client = await loop.create_connection(
            lambda: Client(manner, lambda: lasted.set_result(loop.time() - opened)), HOST, port
        )
        return client, lasted

    return dict(await asyncio.gather(*(open_one(manners[index % len(manners)]) for index in range(number))))


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
        turns = [(manner, seconds / len(manners)) for manners in CROWDS.values() for manner in manners]
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
        *(sys.executable, "-m", "reliability.rows.strangers", str(port), manner, str(sockets)),
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


class Crowd:
    """Keep `sockets` connections of one manner open."""

    def __init__(self, port: int, manner: Manner, sockets: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._manner = manner
        self.opened = 0
        self._port = port
        self._sockets = sockets
        self._opening = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        for _ in range(self._sockets):
            self._open()
        while True:
            sys.stdout.write(f"{self.opened}\n")
            sys.stdout.flush()
            await asyncio.sleep(SAY_EVERY)

    def _lost(self) -> None:
        self._loop.call_later(AGAIN_AFTER, self._open)

    def _open(self) -> None:
        task = self._loop.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        async with self._opening:
            client = socket.socket()
            client.setblocking(False)
            # A connection closed by a reset does not occupy its port for another minute.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            try:
                await self._loop.sock_connect(client, (HOST, self._port))
                await self._loop.create_connection(lambda: Client(self._manner, self._lost), sock=client)
                self.opened += 1
            except OSError:
                client.close()
                self._lost()


def main(port: str, manner: str, sockets: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    number = min(int(sockets), hard - RESERVE)

    async def run() -> None:
        manners = {name: each for kind in CROWDS.values() for name, each in kind.items()}
        await Crowd(int(port), manners[manner], number).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:])
