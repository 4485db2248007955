"""Row 17: assistants that raise, refuse, exit and hang, among good ones; and the same of predicates."""

import asyncio
from pathlib import Path

from reliability.fleet import Fleet
from reliability.result import Result
from reliability.rows import poisoned_predicates
from reliability.stores import Stores
from whereby_trigger.assist.runners import BACKOFF
from whereby_trigger.clock import boot_time
from whereby_trigger.store import Room, RoomState
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing.program import until

POISONS = ("raise", "refuse", "exit", "hang")
OVER_WITHIN = 120.0
LOOK = 0.2
AT_ONCE = 50
GOOD = 5


async def run(folder: Path, stores: Stores, *, doses: int, backoff: tuple[float, ...] = BACKOFF) -> Result:
    """Let so many rooms poison a replica; each must be parked or stay its own, and the good rooms must go on."""
    options = ("--assistant", "poison", "--max-rooms", "5000", "--backoff", *map(str, backoff))
    async with Fleet(folder, stores, *options) as fleet:
        replica = await fleet.start()
        good = [f"/good-{number}" for number in range(GOOD)]
        bad = [f"/{POISONS[number % len(POISONS)]}-{number}" for number in range(doses)]
        for room in good:
            await fleet.join(room, replica)
        await fleet.until(good, lambda tick: True, OVER_WITHIN)
        gate = asyncio.Semaphore(AT_ONCE)

        async def poison(room: str) -> int:
            async with gate:
                return await fleet.join(room, replica)

        answers = await asyncio.gather(*map(poison, bad))
        rooms = await _until_parked(fleet.url, doses)
        now = boot_time()
        alive = await fleet.until(good, lambda tick: tick.at > now, OVER_WITHIN)
        code = await fleet.drain(replica)
    problems = [f"{answers.count(status)} answers were {status}" for status in set(answers) - {200}]
    problems += [f"{room.key} is {room.state}: {room.reason}" for room in rooms if not _as_it_must_be(room)]
    problems += [f"{room} no longer ticks" for room in set(good) - alive.keys()]
    problems += [] if code == 0 else [f"the replica exited with {code}"]
    states = [room.state for room in rooms if _poison(room)]
    figures: dict[str, int | float | str] = {
        "poisoned rooms": doses,
        "parked as failed": states.count(RoomState.FAILED),
        "hanging, in their own room only": states.count(RoomState.LIVE),
        "good rooms that went on": len(alive),
    }
    (folder / "asked").mkdir()
    asked = await poisoned_predicates.run(folder / "asked", stores, doses=doses)
    return Result(figures | asked.figures, problems + asked.problems)


async def _until_parked(url: str, doses: int) -> list[Room]:
    store = store_for(url)
    await store.open_readonly()

    async def all_parked() -> bool:
        return sum(_as_it_must_be(room) for room in await store.rooms() if _poison(room)) == doses

    try:
        await until(all_parked, OVER_WITHIN, LOOK)
        return await store.rooms()
    finally:
        await store.close()


def _poison(room: Room) -> bool:
    return "/good-" not in room.key


def _as_it_must_be(room: Room) -> bool:
    hangs = "/hang-" in room.key or "/good-" in room.key
    attempts = 1 if hangs or "/refuse-" in room.key else 4
    return room.state is (RoomState.LIVE if hangs else RoomState.FAILED) and room.attempt == attempts
