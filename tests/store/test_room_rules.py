"""Both stores do what the table of a room's rules says, event by event, in every situation of an entry."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW
from tests.support.counts import people
from tests.support.place import Place
from tests.support.rooms import bring_to, move, request, session
from whereby_trigger.store import Bounds, Room, RoomClaim, RoomRequest, RoomState, RunQuery, Store
from whereby_trigger.store.room_rules import (
    MOVES,
    ROOM_TRANSITIONS,
    RULES,
    Change,
    Effect,
    OpenRoom,
    RoomEvent,
    change,
    meets,
    pack,
    requested,
    unpack,
)
from whereby_trigger.store.states import OVER, OWNED

pytestmark = pytest.mark.anyio

WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
OWN, NEXT, THIRD = "own", "next", "third"
MAX_AGE = 40.0
WHY = "as the event says"
LONG_AGO = 1.0
SOON = NOW + 5


class Situation(NamedTuple):
    """Hold the situation of a room's entry: its state, whether its end was requested, and its successor's time."""

    state: RoomState
    stop: str | None = None
    successor_asked_at: float | None = None

    @property
    def key(self) -> str:
        return f"acme.whereby.com/{self.state}-{self.stop}-{self.successor_asked_at}"

    @property
    def ending(self) -> bool:
        return self.state is ENDING or self.stop is not None

    @property
    def next(self) -> RoomRequest | None:
        """Return its successor: of the next session, of an unknown one if it is not ending, or by hand if long ago."""
        if self.successor_asked_at is None:
            return None
        session_id = NEXT if self.successor_asked_at == SOON and self.ending else None
        webhook = NEXT if self.successor_asked_at == SOON else None
        return request(self.key, webhook=webhook, session_id=session_id, asked_at=self.successor_asked_at)

    async def come_about(self, store: Store) -> OpenRoom:
        room = await bring_to(store, self.state, key=self.key, session_id=OWN)
        if self.stop is not None:
            await store.stop(self.key, self.stop)
        successor = None
        if self.next is not None:
            state = ENDING if self.ending else self.state
            assert await store.request(self.next) == RoomClaim(False, state, room.owner, successor=True)
            successor = pack(self.next)
        return OpenRoom(room.id, self.state, room.owner, self.stop, OWN, NOW, successor)


SITUATIONS = [
    *(Situation(state) for state in (LIVE, STARTING, ENDING)),
    *(Situation(state, "asked") for state in (LIVE, STARTING, ENDING)),
    *(
        Situation(state, stop, asked_at)
        for state, stop in ((LIVE, "asked"), (STARTING, "asked"), (ENDING, "asked"), (ENDING, None))
        for asked_at in (SOON, LONG_AGO)
    ),
    *(Situation(state, None, SOON) for state in (LIVE, STARTING)),
    Situation(WAITING),
    Situation(WAITING, None, SOON),
]
"""Every situation that an open entry can be in. Waiting ones come last, or `take` would take them for others."""


class Stage(NamedTuple):
    """Hold the replica that owns the rooms, and another one."""

    place: Place
    owner: Store
    other: Store

    def request(self, event: RoomEvent) -> Callable[[OpenRoom, str], Awaitable[None]]:
        async def requests(room: OpenRoom, key: str) -> None:
            request = third(key, event)
            assert meets(room, request) is event
            claim = await self.owner.request(request)
            assert claim == requested(room, request, [], None).claim

        return requests

    async def stop(self, room: OpenRoom, key: str) -> None:
        assert await self.owner.stop(key, WHY) is room.state

    async def end_session(self, room: OpenRoom, key: str) -> None:
        await session(self.owner, f"{key} ended", key=key, session_id=OWN, created_at=None)

    async def end_next_session(self, room: OpenRoom, key: str) -> None:
        await session(self.owner, f"{key} next ended", key=key, session_id=NEXT, created_at=NOW + 20)

    def move(self, state: RoomState) -> Callable[[OpenRoom, str], Awaitable[None]]:
        async def moved(room: OpenRoom, key: str) -> None:
            stored = next(one for one in await self.owner.rooms() if one.id == room.id)
            allowed = room.state in RULES[MOVES[state]]
            assert await move(self.owner, stored, state, WHY) is allowed

        return moved

    async def take(self) -> None:
        taken = [one.key for one in await self.other.take(100)]
        assert taken == [one.key for one in SITUATIONS if one.state is WAITING]

    async def owner_leaves(self) -> None:
        await self.owner.close()

    async def owner_dies_long_ago(self) -> None:
        await self.place.crash(self.owner)
        await self.place.pass_time(2 * MAX_AGE, self.other)
        await self.other.take_over(MAX_AGE)

    async def rooms_grow_old(self) -> None:
        await self.place.pass_time(2 * MAX_AGE, self.owner, self.other)
        await self.other.take_over(MAX_AGE)

    async def nobody_is_there(self) -> None:
        for situation in SITUATIONS:
            await people(self.other, 0, situation.key)
        await self.place.pass_time(MAX_AGE, self.owner, self.other)
        await self.owner.stopping(Bounds(MAX_AGE, None))
        await self.other.end_waiting(Bounds(MAX_AGE, None))

    def to_each(self) -> dict[RoomEvent, Callable[[OpenRoom, str], Awaitable[None]]]:
        return {
            **{event: self.request(event) for event in REQUESTS},
            RoomEvent.STOPPED: self.stop,
            RoomEvent.SESSION_OVER: self.end_session,
            RoomEvent.SUCCESSOR_OVER: self.end_next_session,
            **{event: self.move(state) for state, event in MOVES.items()},
        }

    def to_all(self) -> dict[RoomEvent, Callable[[], Awaitable[None]]]:
        return {
            RoomEvent.TAKEN: self.take,
            RoomEvent.OWNER_GONE: self.owner_leaves,
            RoomEvent.OWNER_LONG_GONE: self.owner_dies_long_ago,
            RoomEvent.TOO_OLD: self.rooms_grow_old,
            RoomEvent.BOUND_REACHED: self.nobody_is_there,
        }


REQUESTS = {
    RoomEvent.REQUESTED: OWN,
    RoomEvent.REQUESTED_LATER: None,
    RoomEvent.REQUESTED_BY_NEXT: THIRD,
}
"""By event, the session of the request that is one to an entry of the session OWN."""


def third(key: str, event: RoomEvent) -> RoomRequest:
    return request(key, webhook=THIRD, session_id=REQUESTS[event], asked_at=NOW + 9)


def expected(room: OpenRoom, key: str, event: RoomEvent) -> Change:
    if event is RoomEvent.SUCCESSOR_OVER and room.successor is None:
        return Change(room)
    asked = pack(third(key, event)) if event in REQUESTS else None
    oldest = 2 * LONG_AGO if event is RoomEvent.OWNER_LONG_GONE else 0.0
    return change(room, event, WHY, asked=asked, oldest=oldest)


@pytest.mark.parametrize("event", RoomEvent)
async def test_each_event_does_to_a_stored_room_what_the_table_says(
    place: Place, replicas: Replicas, event: RoomEvent
) -> None:
    stage = Stage(place, await replicas(), await replicas())
    # If a replica died long ago, a waiting room has itself waited for too long.
    situations = [one for one in SITUATIONS if (one.state, event) != (WAITING, RoomEvent.OWNER_LONG_GONE)]
    before = {situation.key: await situation.come_about(stage.owner) for situation in situations}
    assert set(stage.to_each()) | set(stage.to_all()) == set(RoomEvent)
    if event in stage.to_all():
        await stage.to_all()[event]()
    else:
        for key, room in before.items():
            await stage.to_each()[event](room, key)
    changes = {key: expected(room, key, event) for key, room in before.items()}
    await hold_against(changes, before, stage, event)
    await runs_agree(stage)
    if event not in stage.to_all():
        await successors_are(changes, stage)


async def hold_against(changes: dict[str, Change], before: dict[str, OpenRoom], stage: Stage, event: RoomEvent) -> None:
    stored = {room.id: room for room in await stage.other.rooms()}
    for key, said in changes.items():
        room = stored.pop(said.entry.id)
        owner = before[key].owner or stage.other.replica
        assert (room.state, room.owner) == (said.entry.state, owner if said.entry.state in OWNED else None), key
        if event in (RoomEvent.STOPPED, *MOVES.values()) or said.reason not in (None, WHY):
            assert said.reason in (None, room.reason), key
            assert room.stop == said.entry.stop, key
        assert bool(room.stop) == bool(said.entry.stop), key
    opened = {key: said.opens for key, said in changes.items() if said.opens is not None}
    assert {room.key: (room.webhook, room.state) for room in stored.values()} == {
        key: (opens.request.webhook, WAITING) for key, opens in opened.items()
    }


async def runs_agree(stage: Stage) -> None:
    """Check the runs of every entry: one for each attempt, the last one open while a replica has the room."""
    for room in await stage.other.rooms():
        runs = await stage.other.find_runs(RunQuery(entry=room.id))
        assert [run.attempt for run in runs] == list(range(room.attempt, 0, -1))
        assert [run.ended_at is None for run in runs] == [room.state in OWNED, *[False] * room.attempt][: room.attempt]
        for run in runs:
            assert (run.key, run.webhook) == (room.key, room.webhook)
            assert run.outcome is None or run.ended_at is not None
        assert not runs or runs[0].replica == room.owner or room.owner is None


async def successors_are(changes: dict[str, Change], stage: Stage) -> None:
    """End every open entry, and check which successors wait then."""
    ids = {said.entry.id for said in changes.values()}
    # Successors that already wait belong to entries that are over.
    while taken := [room for room in await stage.owner.take(100) if room.id in ids]:
        assert taken
    for said in changes.values():
        stored: Room = next(room for room in await stage.owner.rooms() if room.id == said.entry.id)
        if stored.owner == stage.owner.replica:
            assert await move(stage.owner, stored, ENDED)
    waiting = {room.key: room.webhook for room in await stage.owner.rooms() if room.id not in ids}
    for key, said in changes.items():
        follows = said.entry.successor is not None or said.opens is not None
        assert (key in waiting) is follows, key
        if said.entry.successor is not None:
            assert waiting[key] == unpack(said.entry.successor).request.webhook, key


def test_every_event_is_in_the_table_and_every_state_that_a_move_leads_to() -> None:
    assert set(RULES) == set(RoomEvent)
    assert set(MOVES) == set(RoomState) - {STARTING}
    for state, event in MOVES.items():
        assert {step.state for step in RULES[event].values()} == {state}


def test_nothing_happens_to_an_entry_that_is_over() -> None:
    assert all(state not in OVER for steps in RULES.values() for state in steps)


def test_only_what_a_replica_owns_can_be_asked_to_end() -> None:
    for steps in RULES.values():
        for state, step in steps.items():
            if Effect.ASK_TO_STOP in step.effects:
                assert state in OWNED
                assert step.state is None


def test_the_statements_of_many_rows_change_only_what_waits() -> None:
    """TAKE and END_OLD, which do not ask the table, name the states `waiting`, `starting` and `ended`."""
    assert {state: step.state for state, step in RULES[RoomEvent.TAKEN].items()} == {WAITING: STARTING}
    assert {state: step.state for state, step in RULES[RoomEvent.TOO_OLD].items()} == {WAITING: ENDED}


def test_the_transitions_follow_from_the_table() -> None:
    assert ROOM_TRANSITIONS[ENDING] == {ENDED}
    assert ROOM_TRANSITIONS[WAITING] == {STARTING, ENDED}
