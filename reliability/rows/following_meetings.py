"""Row 36: meetings follow each other in a room; ends come late, twice or never, and replicas are killed meanwhile."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct

from reliability.fleet import Fleet
from reliability.row import Figures, Result, found, spread
from reliability.stores import Stores
from whereby_trigger import Webhook
from whereby_trigger.cli.arguments import store_to_read
from whereby_trigger.clock import boot_time
from whereby_trigger.store import Room, RoomState, Store
from whereby_trigger.store.states import OVER
from whereby_trigger.testing import webhook
from whereby_trigger.testing.program import until

LOOK = 0.1
"""Seconds between looks at the store's rooms."""

NEWEST_ROOMS = 1000
"""Rooms that a look reads: more than are open at a time."""

LATE = (0, 0, 0, 1, 5, 200)
"""By how many seconds of the series a webhook may be late."""

OFFSET = timedelta(hours=1)


class Series(Struct):
    """Hold the deliveries for the meetings in one room, in order; `ends` are those of the newest one."""

    room: str
    deliveries: list[Webhook]
    newest: frozenset[str]
    ends: list[Webhook]


def series(room: str, random: random.Random) -> Series:
    """Generate a series: ends of older meetings may be lost, and all deliveries may be late and doubled."""
    begin = datetime.now(UTC) - OFFSET
    meetings = random.randint(2, 4)
    sent: list[tuple[float, int, Webhook]] = []
    newest: frozenset[str] = frozenset()
    ends: list[Webhook] = []
    for number in range(meetings):
        named = random.random() < 0.75

        def built(type: str, at: float, *, named: bool = True, number: int = number) -> Webhook:
            created_at = begin + timedelta(seconds=100 * number + at)
            session = f"session {number} of {room}" if named else None
            return webhook(type, room=room, created_at=created_at, room_session_id=session)

        # A join without a name after a session has started may belong to that session or to the next one.
        joins = [built("room.client.joined", at, named=named or at > 1) for at in range(random.randint(1, 3))]
        started, ended = built("room.session.started", 1.5), built("room.session.ended", 90)
        last = number == meetings - 1
        said = [*joins, started, *([] if last or random.random() < 0.4 else [ended])]
        for one in said:
            at = (one.created_at or begin).timestamp() - begin.timestamp()
            late = random.choice(LATE)
            sent += [(at + late + copy, len(sent), one) for copy in range(random.choice((1, 1, 2)))]
        if last:
            newest, ends = frozenset(one.id for one in (*joins, started)), [ended]
    return Series(room, [one for _, _, one in sorted(sent)], newest, ends)


class Watch:
    """Read the open rooms of a store again and again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.open: dict[str, Room] = {}

    async def look(self) -> None:
        while True:
            rooms = await self._store.rooms(limit=NEWEST_ROOMS)
            self.open = {room.key.partition("/")[2]: room for room in rooms if room.state not in OVER}
            await asyncio.sleep(LOOK)

    def of(self, room: str) -> Room | None:
        """Return the open entry of a room."""
        return self.open.get(room.removeprefix("/"))

    async def serves(self, one: Series, within: float) -> float | None:
        """Wait until the newest meeting is served; return the seconds, or None if it is not within `within`."""
        return await self._until(lambda: _is_served(self.of(one.room), one.newest), within)

    async def frees(self, one: Series, within: float) -> float | None:
        """Wait until nobody is in the room; return the seconds, or None if somebody still is after `within`."""
        return await self._until(lambda: self.of(one.room) is None, within)

    async def _until(self, holds: Callable[[], bool], within: float) -> float | None:
        began = boot_time()
        # What was read last may be older than what was delivered.
        await asyncio.sleep(LOOK)
        return boot_time() - began if await until(holds, within, LOOK) else None


def _is_served(room: Room | None, newest: frozenset[str]) -> bool:
    return room is not None and room.state is RoomState.LIVE and room.stop is None and room.webhook in newest


async def run(
    folder: Path, stores: Stores, *, series_of_meetings: int, at_a_time: int, kill_every: float, lease: float = 30.0
) -> Result:
    """Deliver all series, `at_a_time` at a time, to three replicas, killing one every `kill_every` seconds."""
    within = lease + 30.0
    dice = random.Random(series_of_meetings)
    served: list[float] = []
    freed: list[float] = []
    problems: list[str] = []
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(Fleet(folder, stores, "--lease-ttl", f"{lease:g}"))
        for _ in range(3):
            await fleet.start()
        store = await stack.enter_async_context(store_to_read(fleet.url))
        watch, slots = Watch(store), asyncio.Semaphore(at_a_time)

        async def play(one: Series) -> None:
            async with slots:
                for sent in one.deliveries:
                    await _deliver(fleet, sent, dice)
                after = await watch.serves(one, within)
                if after is None:
                    problems.append(f"the newest meeting of {one.room} is not served: {watch.of(one.room)}")
                else:
                    served.append(after)
                for sent in one.ends * 2:
                    await _deliver(fleet, sent, dice)
                if (after := await watch.frees(one, within)) is None:
                    problems.append(f"{one.room} has an assistant though its meeting has ended: {watch.of(one.room)}")
                else:
                    freed.append(after)

        looking, killing = asyncio.create_task(watch.look()), asyncio.create_task(_kill(fleet, kill_every, dice))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(series_of_meetings):
                    group.create_task(play(series(fleet.room(), dice)))
        finally:
            looking.cancel()
            killing.cancel()
            await asyncio.wait({looking, killing})
        kills = killing.result()
        doubled = fleet.ticks.overlaps()
    problems += found(len(doubled), "overlapping ticks")
    figures: Figures = {
        "series": series_of_meetings,
        "kills": kills,
        "newest meetings served": len(served),
        **spread("served after its last webhook", served),
        "slot back after its end, at most (s)": round(max(freed, default=0.0), 2),
        "overlaps": len(doubled),
    }
    return Result(figures, problems)


async def _deliver(fleet: Fleet, sent: Webhook, dice: random.Random) -> None:
    """Deliver to some replica, and to another if it dies meanwhile, as Whereby does."""
    while await fleet.send(sent, dice.choice(fleet.replicas)) != 200:
        await asyncio.sleep(LOOK)


async def _kill(fleet: Fleet, every: float, dice: random.Random) -> int:
    """Kill a replica and start another every `every` seconds until cancelled; return how often."""
    kills = 0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(every)
            # Start first: a delivery must always find a replica, and the fleet must know each one when it closes.
            await fleet.start()
            await fleet.kill(dice.choice(fleet.replicas[:-1]))
            kills += 1
    return kills
