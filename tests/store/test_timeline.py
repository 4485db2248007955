"""What happened in a room, read from each kind of store: meeting by meeting, with the answer for the newest."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import ROOM, decision
from tests.support.place import Place
from tests.support.rooms import ask, move, take_one
from whereby_trigger import timeline
from whereby_trigger.store import (
    Arrival,
    RefusalCount,
    RoomMove,
    RoomState,
    RunOutcome,
    RunReport,
    State,
    Store,
    session_change,
)
from whereby_trigger.timeline import Kind, Timeline
from whereby_trigger.webhook import decode

pytestmark = pytest.mark.anyio

WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
TRUE = "predicate people returned True; an assistant starts"


class Night:
    """Store webhooks and decide them immediately, at the time of the store's clock."""

    def __init__(self, place: Place, store: Store) -> None:
        self.place, self.store = place, store

    @property
    def now(self) -> float:
        return self.place.clock.now()

    async def comes(
        self,
        id: str,
        type: str = "room.client.joined",
        state: State = State.FIRED,
        reason: str = TRUE,
        *,
        session: str | None = "s1",
        errors: tuple[str, ...] = (),
        humans: int = 1,
        bots: int = 0,
    ) -> None:
        created = datetime.fromtimestamp(self.now, UTC).isoformat()
        data: dict[str, Any] = {"roomName": "/visit-1", "subdomain": "acme", "roomSessionId": session}
        if type.startswith("room.client"):
            data |= {"numClients": humans + bots, "numClientsByRoleName": {"host": humans, "assistant": bots}}
        body = json.dumps({"id": id, "type": type, "createdAt": created, "data": data}).encode()
        change = session_change(decode(body), ROOM, self.now)
        added = await self.store.add(Arrival(id, type, ROOM, body, self.now, change=change))
        await self.store.decide(decision(added.seq, id, state, reason=reason, decided_at=self.now, errors=errors))

    async def fires(self, id: str, session: str = "s1") -> None:
        await self.comes(id, session=session)
        await ask(self.store, webhook=id, session_id=session, asked_at=self.now)

    async def refused(self, reason: str, status: int, count: int) -> None:
        # A second ago: the clock may stand at the first moment of a minute, up to which a timeline reads.
        minute = int((self.now - 1) // 60 * 60)
        await self.store.add_refusals([RefusalCount(minute, reason, "r", status, count)])

    async def timeline(self, since: float | None = None, until: float | None = None) -> Timeline:
        return await timeline.of_room(self.store, ROOM, since, until, now=self.now)

    def clock(self, moment: float | None = None) -> str:
        """Return a moment, by default now, as the timeline says it now: with its date if that is not today."""
        now = datetime.fromtimestamp(self.now, UTC).astimezone()
        local = now if moment is None else datetime.fromtimestamp(moment, UTC).astimezone()
        return local.strftime("%H:%M" if local.date() == now.date() else "%Y-%m-%d %H:%M")


@pytest.fixture
def night(place: Place, store: Store) -> Night:
    return Night(place, store)


async def test_an_assistant_that_was_there_is_told_with_its_times(night: Night) -> None:
    began = night.now
    await night.fires("w1")
    room = await take_one(night.store)
    await move(night.store, room, LIVE)
    night.place.clock.jump(600)
    over = night.clock()
    await night.comes("w2", "room.session.ended", State.UNHANDLED, "no predicate")
    await night.store.move(RoomMove(room.id, ENDED, "the session has ended"))
    shown = await night.timeline()
    begun = night.clock(began)
    assert shown.answer == f"An assistant was in the meeting of {begun} from {begun} to {over}: the session has ended."
    (meeting,) = shown.meetings
    assert (meeting.session_id, meeting.over, shown.complete) == ("s1", True, True)
    assert [entry.kind for entry in meeting.entries if entry.kind is not Kind.REPLICA] == [
        Kind.WEBHOOK,
        Kind.STARTED,
        Kind.WEBHOOK,
        Kind.OVER,
    ]


async def test_an_assistant_that_exited_with_75_four_times_is_the_answer(night: Night) -> None:
    began = night.now
    await night.fires("w1")
    for attempt in range(1, 5):
        room = await take_one(night.store)
        report = RunReport(RunOutcome.REFUSED, exit_code=75, output="Ada said no")
        await night.store.move(RoomMove(room.id, WAITING if attempt < 4 else FAILED, "exited with 75", run=report))
    shown = await night.timeline()
    begun = night.clock(began)
    assert shown.answer == f"No assistant in the meeting of {begun}: it exited with 75 four times, and then gave up."
    assert "Ada" not in str(shown)


async def test_a_predicate_that_raised_is_the_answer(night: Night) -> None:
    began = night.now
    await night.comes("w1", state=State.FAILED, reason="predicate a_visitor raised KeyError, 3 times")
    await night.comes("w2", state=State.SKIPPED, reason="predicate a_visitor returned False")
    shown = await night.timeline()
    begun = night.clock(began)
    assert shown.answer == f"No assistant in the meeting of {begun}: predicate a_visitor raised KeyError, 3 times."


async def test_a_room_that_waited_for_a_slot_until_its_session_ended_is_told_so(night: Night) -> None:
    began = night.now
    await night.fires("w1")
    night.place.clock.jump(25)
    await night.store.renew(30)
    await night.comes("w2", "room.session.ended", State.UNHANDLED, "no predicate")
    shown = await night.timeline()
    begun = night.clock(began)
    assert shown.answer == (
        f"No assistant in the meeting of {begun}: no replica had a free slot for 25 s, then the session has ended."
    )


async def test_deliveries_that_were_refused_since_the_last_meeting_come_first(night: Night) -> None:
    await night.comes("w1", state=State.SKIPPED, reason="predicate people returned False")
    night.place.clock.jump(3600)
    await night.refused("wrong signature", 401, 3)
    shown = await night.timeline()
    assert shown.answer.startswith("Since its last meeting, 3 deliveries were refused: wrong signature (401). No ")
    assert [entry.words for entry in shown.meetings[0].entries if entry.kind is Kind.REFUSED] == [
        "3 deliveries refused: wrong signature, answered 401"
    ]


async def test_a_room_without_a_webhook_is_told_what_was_refused_or_that_nothing_came(night: Night) -> None:
    nothing = await night.timeline()
    assert nothing.answer.startswith("No assistant: no webhook of this room is stored, and none was refused. Does")
    await night.refused("wrong path", 404, 2)
    shown = await night.timeline()
    assert shown.answer == (
        "No assistant: no webhook of this room is stored, but 2 deliveries were refused: wrong path (404)."
    )


async def test_a_replica_that_died_and_the_one_that_went_on_are_named(
    place: Place, store: Store, replicas: Replicas
) -> None:
    night = Night(place, store)
    dead = await replicas()
    await Night(place, dead).fires("w1")
    await move(dead, await take_one(dead), LIVE)
    await place.bury(dead, store)
    await store.take_over()
    await move(store, await take_one(store), LIVE)
    shown = await night.timeline()
    words = [entry.words for entry in shown.meetings[0].entries]
    assert f"the assistant is gone: its replica {dead.replica[:8]} died" in words
    assert f"replica {dead.replica[:8]}, which had the assistant, died" in words
    assert f"attempt 2 starts on replica {store.replica[:8]} and is live" in words
    assert shown.answer.startswith("An assistant is in the meeting of ")


async def test_meetings_are_told_apart_by_their_sessions_newest_first(night: Night) -> None:
    await night.comes("w1", state=State.SKIPPED, reason="no", session="s1")
    night.place.clock.jump(20)
    await night.comes("w2", state=State.SKIPPED, reason="no", session="s2")
    await night.comes("w3", state=State.SKIPPED, reason="no", session="s1")
    shown = await night.timeline()
    told = [
        (meeting.session_id, [entry.fields["id"] for entry in meeting.entries if entry.kind is Kind.WEBHOOK])
        for meeting in shown.meetings
    ]
    assert told == [("s2", ["w2"]), ("s1", ["w1", "w3"])]


async def test_a_listener_that_raised_is_named_without_what_it_said(night: Night) -> None:
    await night.comes("w1", errors=("listener greet: KeyError (at /app.py:3): 'Ada'",))
    shown = await night.timeline()
    assert "; listener greet raised KeyError" in shown.meetings[0].entries[-1].words
    assert "Ada" not in str(shown)


async def test_a_trigger_that_was_not_running_is_told(place: Place, replicas: Replicas) -> None:
    store = await replicas()
    await store.close()
    place.clock.jump(3600)
    looking = place.replica()
    await looking.open_readonly()
    now = place.clock.now()
    shown = await timeline.of_room(looking, ROOM, now - 60, now, now=now)
    await looking.close()
    assert shown.answer.endswith(", and no trigger was running.")
