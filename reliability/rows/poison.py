"""Row 17: assistants that raise, refuse, exit and hang, among good ones; and predicates that do the same."""

import asyncio
from collections import Counter
from pathlib import Path

from reliability.fleet import Fleet
from reliability.load import send
from reliability.measures import percentile
from reliability.receiver import SECRET
from reliability.row import Figures, Result, some_at_a_time
from reliability.stores import Stores, decided
from whereby_trigger import RoomClientJoined, Trigger
from whereby_trigger.assist.runners import BACKOFF
from whereby_trigger.cli.arguments import store_to_read
from whereby_trigger.clock import boot_time
from whereby_trigger.store import Record, Room, RoomState, State
from whereby_trigger.testing import webhook
from whereby_trigger.testing.program import until

POISONS = ("raise", "refuse", "exit", "hang")
OVER_WITHIN = 120.0
LOOK = 0.2
AT_ONCE = 50
GOOD = 5

ASKED = {"raise": 3, "hang": 3, "exit": 3, "forget": 1}
"""The poisons, and how often each is asked before it is parked."""

PREDICATE_TIMEOUT = 0.5
GOOD_AMONG = 10
"""The number of poisoned webhooks before each good one."""

UNAFFECTED = 2.0
"""Seconds within which a good webhook must be decided while poisoned ones hang."""


async def run(folder: Path, stores: Stores, *, doses: int, backoff: tuple[float, ...] = BACKOFF) -> Result:
    """Poison a replica in `doses` rooms; each must be parked or affect only itself, and the good rooms must go on."""
    options = ("--assistant", "poison", "--max-rooms", "5000", "--backoff", *map(str, backoff))
    async with Fleet(folder, stores, *options) as fleet:
        replica = await fleet.start()
        good = [f"/good-{number}" for number in range(GOOD)]
        bad = [f"/{POISONS[number % len(POISONS)]}-{number}" for number in range(doses)]
        for room in good:
            await fleet.join(room, replica)
        await fleet.ticks.until(good, OVER_WITHIN)
        answers = await some_at_a_time(AT_ONCE, lambda room: fleet.join(room, replica), bad)
        rooms = await _until_parked(fleet.url, doses)
        now = boot_time()
        alive = await fleet.ticks.until(good, OVER_WITHIN, lambda tick: tick.at > now)
        code = await fleet.drain(replica)
    problems = [f"{answers.count(status)} answers were {status}" for status in set(answers) - {200}]
    problems += [f"{room.key} is {room.state}: {room.reason}" for room in rooms if not _as_it_must_be(room)]
    problems += [f"{room} no longer ticks" for room in set(good) - alive.keys()]
    problems += [] if code == 0 else [f"the replica exited with {code}"]
    states = [room.state for room in rooms if _poison(room)]
    figures: Figures = {
        "poisoned rooms": doses,
        "parked as failed": states.count(RoomState.FAILED),
        "hanging, in their own room only": states.count(RoomState.LIVE),
        "good rooms that went on": len(alive),
    }
    asked = await _run_predicates(folder / "asked", stores, doses)
    return Result(figures | asked.figures, problems + asked.problems)


async def _until_parked(url: str, doses: int) -> list[Room]:
    async def all_parked() -> bool:
        return sum(_as_it_must_be(room) for room in await store.rooms() if _poison(room)) == doses

    async with store_to_read(url) as store:
        await until(all_parked, OVER_WITHIN, LOOK)
        return await store.rooms()


def _poison(room: Room) -> bool:
    return "/good-" not in room.key


def _as_it_must_be(room: Room) -> bool:
    hangs = "/hang-" in room.key or "/good-" in room.key
    attempts = 1 if hangs or "/refuse-" in room.key else 4
    return room.state is (RoomState.LIVE if hangs else RoomState.FAILED) and room.attempt == attempts


async def poisoned(webhook: RoomClientJoined) -> bool | None:
    """Do to a trigger what the room's name says."""
    match webhook.data.room_name.strip("/").partition("-")[0]:
        case "raise":
            raise RuntimeError("poison")
        case "hang":
            await asyncio.Event().wait()
        case "exit":
            raise SystemExit(1)
        case "good":
            return True
    return None


async def _run_predicates(folder: Path, stores: Stores, doses: int) -> Result:
    """Deliver poisoned webhooks, each in its own room; each must be parked, and the good ones must fire."""
    url = stores.new(folder)
    trigger = Trigger(
        port=0,
        host="127.0.0.1",
        secret=SECRET,
        store=url,
        predicate_timeout=PREDICATE_TIMEOUT,
        webhook_triggers={"room.client.joined": poisoned},  # type: ignore[typeddict-item]  # one that forgets
    )
    async with trigger:
        answers = await _deliver(trigger.port, doses)
        records = await decided(url)
    good = [record for record in records if _kind(record) == "good"]
    parked = [record for record in records if record.state is State.FAILED]
    delays = [(record.decided_at or 0.0) - record.received_at for record in good]
    problems = [f"{count} answers were {status}" for status, count in Counter(answers).items() if status != 200]
    problems += [
        f"{record.room} is {record.state}: {record.reason}" for record in records if not _decided_as_it_must_be(record)
    ]
    problems += [f"a good one took {max(delays):.1f} s"] if max(delays) > UNAFFECTED else []
    figures: Figures = {
        "webhooks whose predicate is poisoned": len(records) - len(good),
        "poisoned webhooks parked as failed": len(parked),
        "good webhooks that fired": sum(record.state is State.FIRED for record in good),
        "good ones decided after, p99 (ms)": round(percentile(delays, 99) * 1000, 1),
    }
    return Result(figures, problems)


async def _deliver(port: int, doses: int) -> list[int]:
    kinds = list(ASKED)
    answers: list[int] = []
    for number in range(doses):
        answers.append(await _send(port, f"/{kinds[number % len(kinds)]}-{number}"))
        if number % GOOD_AMONG == 0:
            answers.append(await _send(port, f"/good-{number}"))
    return answers


async def _send(port: int, room: str) -> int:
    return await send(port, webhook("room.client.joined", room=room).raw)


def _kind(record: Record) -> str:
    return (record.room or "").rpartition("/")[2].partition("-")[0]


def _decided_as_it_must_be(record: Record) -> bool:
    kind = _kind(record)
    if kind == "good":
        return record.state is State.FIRED
    return record.state is State.FAILED and record.attempts == ASKED[kind]
