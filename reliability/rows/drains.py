"""Rows 16 and 34: replicas drain, in rolling deploys and with user code that blocks or holds every thread."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle
from pathlib import Path

from reliability.corpus import Item
from reliability.fleet import Fleet
from reliability.load import Load
from reliability.row import Figures, Result, found, some_at_a_time, spread
from reliability.stores import Stores, decided
from whereby_trigger.clock import boot_time
from whereby_trigger.replica import DRAIN_MARGIN
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

RATE = 20.0
ROOMS = 10
HAND_OVER = 2.0
DRAIN_TIMEOUT, STOP_GRACE, MARGIN = 0.2, 2.0, 5.0
WITHIN = 15.0
BLOCKED_EXIT = 70

CROWDED_ROOMS = 36
"""More than the default executor has threads, 32 at the most. Source: Python's docs, ThreadPoolExecutor."""

CROWDED_STOP_GRACE = 0.5
SLACK = 2.5
"""Seconds for the last words, the end of the process and the wait for both."""

CROWDED_WITHIN = 30.0


async def run_deploys(folder: Path, stores: Stores, *, deploys: int, blocking_deploys: int) -> Result:
    """Replace a replica `deploys` times; then drain `blocking_deploys` replicas whose assistants block the loop."""
    result = await _deploy(folder, stores, deploys)
    exits = [await _drain_blocked(folder / f"blocked-{number}", stores) for number in range(blocking_deploys)]
    problems = list(result.problems)
    bound = DRAIN_TIMEOUT + STOP_GRACE + MARGIN + 1.5
    problems += [f"blocked: ended after {seconds:.1f} s, not {bound:g}" for seconds, _ in exits if seconds > bound]
    problems += [f"blocked: exit code {code}, not {BLOCKED_EXIT}" for _, code in exits if code != BLOCKED_EXIT]
    blocked: Figures = {"drains with blocking user code": len(exits)}
    if exits:
        blocked["of these ended after, at most (s)"] = round(max(seconds for seconds, _ in exits), 1)
    return Result({**result.figures, **blocked}, problems)


async def _deploy(folder: Path, stores: Stores, deploys: int) -> Result:
    problems: list[str] = []
    delays: list[float] = []
    async with Fleet(folder, stores) as fleet, AsyncExitStack() as stack:
        rooms = [fleet.room() for _ in range(ROOMS)]
        load = Load(folder, seed=16, source=_joins(rooms), proxied=True)
        stack.callback(load.close)
        serving = [await fleet.start() for _ in range(2)]
        load.ports = [await replica.listening() for replica in serving]
        async with load.going(RATE):
            await fleet.ticks.until(rooms, WITHIN)
            for _ in range(deploys):
                serving.append(await fleet.start())
                old = serving.pop(0)
                left = fleet.rooms_of(old)
                load.ports = [await replica.listening() for replica in serving]
                drained_at = boot_time()
                if code := await fleet.drain(old):
                    problems.append(f"a drained replica exited with {code}; it said:\n{old.last_words}")
                again, missing = await fleet.until_elsewhere(left, old, drained_at, WITHIN)
                problems += missing
                lasts = {tick.room: tick.at for tick in fleet.ticks.all if tick.host == old.pid}
                delays += [at - lasts[room] for room, at in again.items()]
        stored = {record.id for record in await decided(fleet.url)}
        doubled = fleet.ticks.overlaps()
    acknowledged = load.acknowledged().keys()
    lost = acknowledged - stored
    slow = [delay for delay in delays if delay > HAND_OVER]
    problems += found(len(lost), "acknowledged are lost")
    problems += found(len(slow), f"hand-overs took longer than {HAND_OVER:g} s")
    problems += found(len(doubled), "overlapping ticks")
    figures: Figures = {
        "deploys": deploys,
        "acknowledged": len(acknowledged),
        "lost": len(lost),
        "hand-overs": len(delays),
        **spread("hand-over", delays),
        "overlaps": len(doubled),
    }
    return Result(figures, problems)


def _joins(rooms: Sequence[str]) -> Iterator[Item]:
    """Yield joins without end, room after room."""
    for room in cycle(rooms):
        joined = webhook("room.client.joined", room=room)
        yield Item(joined.id, joined.type, room, joined.raw, State.FIRED)


async def _drain_blocked(folder: Path, stores: Stores) -> tuple[float, int]:
    async with Fleet(folder, stores, "--assistant", "blocking") as fleet:
        replica = await fleet.start()
        await fleet.occupy(replica, 1, WITHIN)
        return await _drain(fleet)


async def run_full_executors(
    folder: Path, stores: Stores, *, drains: int, side_by_side: int = 1, margin: float = DRAIN_MARGIN
) -> Result:
    """Drain `drains` replicas, some at a time, whose user code holds every thread; `margin` is in seconds."""
    folders = [folder / f"drain-{number}" for number in range(drains)]
    ends = await some_at_a_time(side_by_side, partial(_drain_crowded, stores, margin), folders)
    bound = DRAIN_TIMEOUT + CROWDED_STOP_GRACE + margin + SLACK
    problems = [f"ended after {seconds:.1f} s, not {bound:g}" for seconds, _ in ends if seconds > bound]
    problems += [f"exit code {code}, not 0" for _, code in ends if code != 0]
    longest = round(max(seconds for seconds, _ in ends), 1)
    return Result({"drains": drains, "ended after, at most (s)": longest}, problems)


async def _drain_crowded(stores: Stores, margin: float, folder: Path) -> tuple[float, int]:
    grace = ("--stop-grace", f"{CROWDED_STOP_GRACE}", "--drain-timeout", f"{DRAIN_TIMEOUT}")
    async with Fleet(folder, stores, "--assistant", "crowding", "--drain-margin", f"{margin}", *grace) as fleet:
        replica = await fleet.start()
        rooms = await fleet.occupy(replica, CROWDED_ROOMS, CROWDED_WITHIN)
        for room in rooms[:2]:
            await fleet.send(webhook("room.client.left", room=room), replica)
        return await _drain(fleet)


async def _drain(fleet: Fleet) -> tuple[float, int]:
    """Drain the fleet's only replica; return after how many seconds it ended, and its exit code."""
    (replica,) = fleet.replicas
    began = boot_time()
    code = await fleet.drain(replica)
    return boot_time() - began, code
