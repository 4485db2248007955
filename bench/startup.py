"""How long a start takes on a store that is long in use, with webhooks left to decide."""

import time

from msgspec import Struct

from bench.bodies import bodies
from bench.books import looking_into
from bench.open_loop import OpenLoop
from bench.rounds import DECIDED_WITHIN
from bench.setting import Setting
from bench.sides import Side


class Start(Struct, frozen=True):
    """Hold the seconds from the start of the process to its first 200, and until all that was left was decided."""

    answered: float
    decided: float


async def start(setting: Setting, side: Side, url: str, pending: int) -> Start:
    """Start a receiver on a store in which it finds so many pending webhooks, and deliver to it as soon as it listens.

    The time includes the start of Python and all imports.
    """
    async with looking_into(url) as books:
        await books.leave_pending(pending, time.time())
    began = time.monotonic()
    async with setting.up(side, url=url) as server:
        async with OpenLoop(server.port, bodies()) as sender:
            (delivery,) = await sender.at_once(1)
        assert server.books is not None
        decided = await server.books.until_decided(DECIDED_WITHIN)
        await server.stop()
    return Start(delivery.sent + delivery.took - began, decided - began)
