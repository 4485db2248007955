"""How much memory a receiver takes, idle, under load and after it, and how much disk a webhook does."""

import asyncio
import time

from msgspec import Struct

from bench.bodies import bodies, write_requests
from bench.load import LoadFailed
from bench.open_loop import OpenLoop
from bench.rounds import DECIDED_WITHIN
from bench.setting import Setting
from bench.sides import Server, Side
from reliability.memory import forget_peak, peak, resident

FIRST = 100
"""Deliveries before a receiver counts as idle: what is imported and allocated once is there by then."""

SETTLED = 5.0
"""Seconds after which memory that is to be given back has been."""


class Footprint(Struct, frozen=True):
    """Hold bytes of memory: idle, at most in a burst, after it, at most under load, after that; and bytes on disk."""

    idle: int
    in_burst: int
    after_burst: int
    under_load: int
    after_load: int
    each_on_disk: float


async def footprint(setting: Setting, side: Side, burst: int, webhooks: int, connections: int) -> Footprint:
    """Weigh a receiver on a new store before, in and after a burst and a load."""
    source = bodies()
    async with setting.up(side) as server, OpenLoop(server.port, source) as sender:
        assert server.books is not None
        pid = server.process.pid
        await sender.evenly(FIRST, 1.0)
        await server.books.until_decided(DECIDED_WITHIN)
        idle = resident(pid)

        forget_peak(pid)
        if refused := [one.refusal for one in await sender.at_once(burst) if one.refusal]:
            raise LoadFailed(f"{len(refused)} deliveries of a burst were answered {refused[0]}")
        sender.hang_up()
        after_burst, in_burst = await _settled(server), peak(pid)

        forget_peak(pid)
        requests = write_requests(server.folder / "requests", source, webhooks, time.time())
        await setting.generator(server.port, requests, connections, setting.cores.load)
        after_load, under_load = await _settled(server), peak(pid)

        await server.stop()
        each = await server.books.size() / (await server.books.counted(0)).stored
    return Footprint(idle, in_burst, after_burst, under_load, after_load, each)


async def _settled(server: Server) -> int:
    """Wait until all is decided and what is not needed any more is given back; give the bytes that are left."""
    assert server.books is not None
    await server.books.until_decided(DECIDED_WITHIN)
    await asyncio.sleep(SETTLED)
    return resident(server.process.pid)
