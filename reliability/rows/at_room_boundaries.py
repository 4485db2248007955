"""Row 27, of our own: row 2 for rooms. A replica is killed before and after each claim, take, spawn and record."""

from pathlib import Path

from reliability.boundaries import ROOM_BOUNDARIES
from reliability.fleet import Fleet
from reliability.process import Receiver, ReceiverFailed
from reliability.row import Result
from reliability.stores import Stores, decided
from reliability.ticks import overlaps
from whereby_trigger.testing import webhook

WITHIN = 20.0
SOON = 2.0
"""Seconds after which a replica whose room is served by another no longer reaches its boundary."""


async def run(folder: Path, stores: Stores, *, deaths: int) -> Result:
    """Kill a replica `deaths` times at each boundary while another lives; each room must get its one assistant.

    If the other replica takes the room first, the replica does not reach its boundary, and another one has to.
    """
    problems: list[str] = []
    doubled = served = outrun = 0
    async with Fleet(folder, stores, *stores.quick_lease) as fleet:
        survivor = await fleet.start()
        acknowledged: list[str] = []
        for boundary in ROOM_BOUNDARIES:
            died = 0
            while died < deaths and outrun <= len(ROOM_BOUNDARIES) * deaths:
                try:
                    doomed = await fleet.start("--die", boundary)
                except ReceiverFailed:
                    # It looks for rooms to take as it starts, and died before it said where it listens.
                    fleet.replicas.pop()
                    outrun += 1
                    continue
                room = fleet.room()
                acknowledged.append(await _join(fleet, room, doomed, survivor))
                if await fleet.until([room], lambda tick: tick.host == survivor.pid, WITHIN):
                    served += 1
                else:
                    problems.append(f"{boundary}: no assistant of the survivor came to {room}")
                fleet.replicas.remove(doomed)
                if await doomed.died(SOON):
                    died += 1
                else:
                    outrun += 1
                    await doomed.kill()
                await fleet.send(webhook("room.session.ended", room=room, room_session_id=room), survivor)
        fleet.ticks.fresh()
        doubled = len(overlaps(fleet.ticks.all))
        states = {record.id: record.state for record in await decided(fleet.url)}
    lost = [id for id in acknowledged if states.get(id) != "fired"]
    problems += [f"{len(lost)} acknowledged did not fire"] if lost else []
    problems += [f"{doubled} overlapping ticks"] if doubled else []
    problems += [f"the other replica was quicker {outrun} times"] if outrun > len(ROOM_BOUNDARIES) * deaths else []
    figures: dict[str, int | float | str] = {
        "boundaries": len(ROOM_BOUNDARIES),
        "deaths at each": deaths,
        "rooms served": served,
        "did not die of this room": outrun,
        "acknowledged lost": len(lost),
        "overlaps": doubled,
    }
    return Result(figures, problems)


async def _join(fleet: Fleet, room: str, doomed: Receiver, survivor: Receiver) -> str:
    """Deliver a join to the doomed replica, and to the other if no answer comes; return its id."""
    sent = webhook("room.client.joined", room=room, room_session_id=room)
    if await fleet.send(sent, doomed) != 200:
        await fleet.send(sent, survivor)
    return sent.id
