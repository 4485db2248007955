"""Row 33: a replica is out of threads, files or memory for a while, as it starts assistants, decides or reconnects."""

import asyncio
import os
import random
import signal
from pathlib import Path

from reliability.fleet import Fleet
from reliability.receiver import SECRET
from reliability.receivers import Receiver, ReceiverFailed
from reliability.row import Figures, Result, some_at_a_time
from reliability.stores import PostgresStores, Stores, viewing
from whereby_trigger.cli.arguments import store_to_read
from whereby_trigger.clock import boot_time
from whereby_trigger.store import RoomState, State
from whereby_trigger.testing import webhook
from whereby_trigger.testing.program import until
from whereby_trigger.testing.sender import Address, Sender
from whereby_trigger.webhook import Webhook

MOMENTS = (
    ("files", "starting"),
    ("threads", "starting"),
    ("files", "deciding"),
    ("threads", "deciding"),
    ("memory", "deciding"),
    ("files", "reconnecting"),
    ("threads", "reconnecting"),
)
"""What is lacking and when. A started process has its own memory limit, as large as ours."""

BACK_WITHIN = 5.0
WITHIN = 30.0
SLACK = 1.0
WARM = 16
LOOK = 0.05


class Cell:
    """Hold a replica that runs out of one resource, and a connection opened before."""

    def __init__(self, fleet: Fleet, replica: Receiver, stores: Stores, moment: str) -> None:
        self._fleet, self._replica, self._stores, self._moment = fleet, replica, stores, moment
        self._sender = Sender(Address.local(), SECRET)
        self.problems: list[str] = []
        self.backs: list[float] = []

    async def warm(self) -> None:
        """Open every connection to the store, and start every thread that would otherwise start on demand."""
        self._sender.address = Address.local(await self._replica.listening())
        for _ in range(WARM):
            # Any room's webhook opens the connections, and no assistant starts for this one.
            await self._post(webhook("room.client.knocked", room=self._fleet.room()))
        room = self._fleet.room()
        await self._join(room)
        await self._fleet.ticks.until([room], WITHIN)
        if not await until(self._is_ready, WITHIN, LOOK):
            raise ReceiverFailed(f"the replica is not ready:\n{self._replica.last_words}")

    async def dose(self, seconds: float) -> None:
        """Create a shortage for `seconds` seconds, and check that all is well again."""
        os.kill(self._replica.pid, signal.SIGUSR1)
        await asyncio.sleep(LOOK)
        room = f"{self._fleet.room()}-{self._moment}"
        if self._moment == "reconnecting":
            assert isinstance(self._stores, PostgresStores)
            await asyncio.to_thread(self._stores.disconnect, self._fleet.url)
        answer = await self._join(room)
        told = False
        over = boot_time() + seconds
        while boot_time() < over:
            told = not await self._is_ready() or told
            await asyncio.sleep(LOOK)
        os.kill(self._replica.pid, signal.SIGUSR2)
        began = boot_time()
        if not told:
            self.problems.append(f"{room}: /readyz did not tell in {seconds:.1f} s")
        if answer != 200:
            await until(lambda: self._joins(room), WITHIN, LOOK)
        await self._fleet.ticks.until([room], WITHIN)
        await until(self._is_ready, began + WITHIN - boot_time(), LOOK)
        self.backs.append(boot_time() - began)
        await self._fleet.leave(room)

    def close(self) -> None:
        self._sender.close()

    async def _join(self, room: str) -> int:
        return await self._post(webhook("room.client.joined", room=room, room_session_id=f"session of {room}"))

    async def _joins(self, room: str) -> bool:
        return await self._join(room) == 200

    async def _post(self, sent: Webhook) -> int:
        return (await self._sender.deliver(sent.raw, retries=0))[-1].status

    async def _is_ready(self) -> bool:
        return (await self._sender.get("/readyz")).status == 200


async def run(
    folder: Path, stores: Stores, *, doses: int, shortest: float, longest: float, side_by_side: int = 1
) -> Result:
    """Create each shortage `doses` times at each moment, on some replicas at a time."""
    moments = [each for each in MOMENTS if isinstance(stores, PostgresStores) or each[1] != "reconnecting"]

    async def give(each: tuple[str, str]) -> tuple[list[str], list[float]]:
        (what, moment), chance = each, random.Random(MOMENTS.index(each))
        async with Fleet(folder / f"{what}-{moment}", stores, "--short-of", what) as fleet:
            cell = Cell(fleet, await fleet.start(), stores, moment)
            try:
                await cell.warm()
                for _ in range(doses):
                    await cell.dose(chance.uniform(shortest, longest))
            finally:
                cell.close()
            problems = [*cell.problems, *await _failed_for_good(fleet)]
        problems += [f"back only after {back:.1f} s" for back in cell.backs if back > BACK_WITHIN + SLACK]
        return [f"{what}, {moment}: {problem}" for problem in problems], cell.backs

    given = await some_at_a_time(side_by_side, give, moments)
    figures: Figures = {"shortages": len(moments) * doses}
    for (what, moment), (_, backs) in zip(moments, given, strict=True):
        figures[f"out of {what} while {moment}: back after, at most (s)"] = round(max(backs, default=0.0), 1)
    return Result(figures, [problem for problems, _ in given for problem in problems])


async def _failed_for_good(fleet: Fleet) -> list[str]:
    async with store_to_read(fleet.url) as store:
        rooms = [room for room in await store.rooms() if room.state is RoomState.FAILED or room.restarts]
    async with viewing(fleet.url) as view:
        failed = [record for record in await view.records() if record.state is State.FAILED]
    return [f"room {room.key}: {room.reason}" for room in rooms] + [f"{one.id}: {one.reason}" for one in failed]
