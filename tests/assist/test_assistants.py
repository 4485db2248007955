"""Assistants through the whole trigger: from a delivery to one assistant in its room, and to its end."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.supervised import Assistants
from tests.support.until import eventually
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, Webhook
from whereby_trigger.assist import Session
from whereby_trigger.store import Room, RoomState, State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

STARTING, LIVE, ENDED = RoomState.STARTING, RoomState.LIVE, RoomState.ENDED
JOINED = "room.client.joined"
NOW = datetime.now(UTC)


@pytest.fixture
def assistants() -> Assistants:
    return Assistants()


def trigger_with(assistants: Assistants, *types: str, bots: bool = False, **settings: Any) -> Trigger:
    """Build a trigger that fires for every webhook of these types."""
    trigger = Trigger(stop_grace=0.1, **settings)
    trigger.when(*(types or (JOINED,)))(lambda: True)  # type: ignore[call-overload]
    trigger.assistant(bots=bots)(assistants.stay)
    return trigger


class Delivering:
    """Deliver to a trigger and read its rooms."""

    def __init__(self, trigger: Trigger) -> None:
        self._testing = trigger.testing(assistants="run")

    async def __aenter__(self) -> "Delivering":
        self._t = await self._testing.__aenter__()
        self._store = self._t._store
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._testing._running.drain(0, asyncio.Event())
        await self._testing.__aexit__(*error)

    async def deliver(self, webhook: Webhook) -> tuple[State, str]:
        decision = await self._t.deliver(webhook)
        return decision.state, decision.reason

    async def rooms(self) -> list[Room]:
        return await self._store.rooms()

    async def reaches(self, state: RoomState, name: str = "visit-1") -> Room:
        async def look() -> Room | None:
            entries = [room for room in await self.rooms() if room.key.endswith(f"/{name}")]
            return entries[0] if entries and entries[0].state is state else None

        room: Room = await eventually(look)
        return room

    async def all_stay(self, count: int, assistants: Assistants) -> None:
        await eventually(lambda: len(assistants.there) == count)


async def test_a_success_starts_an_assistant_with_what_fired(assistants: Assistants) -> None:
    fired = webhook(JOINED, num_clients=1, num_clients_by_role_name={"visitor": 1})
    async with Delivering(trigger_with(assistants)) as t:
        state, reason = await t.deliver(fired)
        assert (state, reason.partition("; ")[2]) == (State.FIRED, "an assistant starts")
        await t.reaches(LIVE)
        session = assistants.sessions["visit-1"]
        assert (session.webhook, session.attempt, session.humans) == (fired, 1, 1)
        assert session.room_url == "https://acme.whereby.com/visit-1"


async def test_an_assistant_that_a_webhook_without_counts_starts_knows_who_is_there(assistants: Assistants) -> None:
    async with Delivering(trigger_with(assistants, "room.session.started")) as t:
        await t.deliver(webhook(JOINED, num_clients=2, num_clients_by_role_name={"visitor": 2}))
        await t.deliver(webhook("room.session.started"))
        await t.reaches(LIVE)
        session = assistants.sessions["visit-1"]
        assert (session.humans, session.presence.humans, session.presence.bots) == (2, 2, 0)


async def test_ten_joins_at_once_in_one_room_start_one_assistant(assistants: Assistants) -> None:
    async with Delivering(trigger_with(assistants)) as t:
        decisions = await asyncio.gather(*(t.deliver(webhook(JOINED)) for _ in range(10)))
        await t.reaches(LIVE)
        assert {state for state, _ in decisions} == {State.FIRED}
        assert sum("an assistant starts" in reason for _, reason in decisions) == 1
        assert len(assistants.started) == len(await t.rooms()) == 1


async def test_ten_joins_at_once_in_ten_rooms_start_ten_assistants(assistants: Assistants) -> None:
    async with Delivering(trigger_with(assistants)) as t:
        await asyncio.gather(*(t.deliver(webhook(JOINED, room=f"/{n}")) for n in range(10)))
        await t.all_stay(10, assistants)
        assert sorted(assistants.started) == [(str(n), 1) for n in range(10)]


async def test_a_success_for_a_room_with_an_assistant_starts_nothing_says_so_and_is_told_all_the_same(
    assistants: Assistants,
) -> None:
    told = []
    trigger = trigger_with(assistants)
    trigger.on(TRIGGER_EVENT_SUCCESS)(lambda success: told.append(success.trigger_webhook.id))
    async with Delivering(trigger) as t:
        await t.deliver(webhook(JOINED, id="a"))
        room = await t.reaches(LIVE)
        state, reason = await t.deliver(webhook(JOINED, id="b"))
        assert state is State.FIRED
        assert reason.endswith(f"room has an assistant, on replica {room.owner}")
        assert told == ["a", "b"]
        assert assistants.started == [("visit-1", 1)]


async def test_a_success_without_a_free_slot_says_so_and_the_room_waits_once(assistants: Assistants) -> None:
    async with Delivering(trigger_with(assistants, max_rooms=1)) as t:
        await t.deliver(webhook(JOINED, room="/a"))
        await t.reaches(LIVE, "a")
        assert (await t.deliver(webhook(JOINED, room="/b")))[1].endswith("no free slot: the room waits")
        assert (await t.deliver(webhook(JOINED, room="/b")))[1].endswith("the room waits for an assistant already")
        assistants.let_go("a")
        await t.reaches(LIVE, "b")


async def test_a_predicate_that_says_no_starts_nothing(assistants: Assistants) -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: False})
    trigger.assistant(assistants.stay)
    async with Delivering(trigger) as t:
        assert (await t.deliver(webhook(JOINED)))[0] is State.SKIPPED
        assert await t.rooms() == []


@pytest.mark.parametrize("type", [JOINED, "room.client.left"])
async def test_a_bots_own_event_starts_no_assistant(assistants: Assistants, type: str) -> None:
    bot = webhook(type, role_name="assistant")
    async with Delivering(trigger_with(assistants, type)) as t:
        state, reason = await t.deliver(bot)
        assert (state, reason.partition("; ")[2]) == (State.FIRED, "no assistant for a bot's own event: is_human")
        assert await t.rooms() == []


@pytest.mark.parametrize("type", [JOINED, "room.client.left"])
async def test_a_bots_own_event_starts_an_assistant_where_bots_are_asked_for(assistants: Assistants, type: str) -> None:
    async with Delivering(trigger_with(assistants, type, bots=True)) as t:
        await t.deliver(webhook(type, role_name="assistant"))
        await t.reaches(LIVE)


async def test_the_end_of_its_session_ends_the_assistant_whatever_is_decided_about_it(assistants: Assistants) -> None:
    async with Delivering(trigger_with(assistants)) as t:
        await t.deliver(webhook(JOINED, room_session_id="s"))
        await t.reaches(LIVE)
        assert (await t.deliver(webhook("room.session.ended", room_session_id="s")))[0] is State.UNHANDLED
        assert (await t.reaches(ENDED)).reason == "the session has ended"
        assert assistants.sessions["visit-1"].ended.reason == "the session has ended"


async def test_the_end_of_another_session_leaves_the_assistant_alone(assistants: Assistants) -> None:
    async with Delivering(trigger_with(assistants)) as t:
        await t.deliver(webhook(JOINED, room_session_id="new"))
        await t.reaches(LIVE)
        await t.deliver(webhook("room.session.ended", room_session_id="old"))
        await t.deliver(webhook("room.session.started", room_session_id="old", created_at=NOW - timedelta(hours=1)))
        session = assistants.sessions["visit-1"]
        heard = session.webhooks()
        assert [(await anext(heard)).type for _ in range(2)] == ["room.session.ended", "room.session.started"]
        assert not session.ended.is_set()
        assert (await t.reaches(LIVE)).stop is None


async def test_a_new_session_that_fires_has_the_old_assistant_replaced(assistants: Assistants) -> None:
    async with Delivering(trigger_with(assistants, "room.session.started")) as t:
        await t.deliver(webhook("room.session.started", room_session_id="old"))
        await t.reaches(LIVE)
        old = assistants.sessions["visit-1"]
        later = datetime.now(UTC) + timedelta(seconds=5)
        await t.deliver(webhook("room.session.started", room_session_id="new", created_at=later))
        await eventually(lambda: len(assistants.started) == 2)
        assert old.ended.reason == "another session has started"
        assert [room.state for room in await t.rooms()][1] is ENDED
        assert assistants.most == 1


async def test_an_assistant_follows_the_room_by_its_webhooks(assistants: Assistants) -> None:
    seen: list[int | None] = []

    async def leaves_when_empty(session: Session) -> None:
        async for _ in session.webhooks():
            seen.append(session.humans)
            if session.humans == 0:
                return

    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})
    trigger.assistant(leaves_when_empty)
    async with Delivering(trigger) as t:
        await t.deliver(webhook(JOINED, num_clients=1, num_clients_by_role_name={"visitor": 1}))
        await t.reaches(LIVE)
        await t.deliver(webhook(JOINED, num_clients=2, num_clients_by_role_name={"visitor": 2}))
        # Otherwise both may be read together, and the assistant sees the newer count.
        await eventually(lambda: seen)
        await t.deliver(webhook("room.client.left", num_clients=0, num_clients_by_role_name={}))
        assert (await t.reaches(ENDED)).reason == "it left the room"
    assert seen == [2, 0]


async def test_rooms_are_listed_started_and_stopped_by_hand(assistants: Assistants, tmp_path: Path) -> None:
    trigger = trigger_with(assistants, store=f"sqlite:///{tmp_path}/hand.db", allow_unsigned=True, port=0)
    url = "https://acme.whereby.com/visit-1"
    async with trigger:
        assert (await trigger.start_assistant(url)).new
        await eventually(lambda: assistants.there)
        (room,) = await trigger.list_assistants()
        assert (room.url, room.webhook) == (url, None)
        assert not (await trigger.start_assistant(url)).new
        assert await trigger.stop_assistant(url) in (STARTING, LIVE)
        await eventually(lambda: not assistants.there)
        assert assistants.sessions["visit-1"].ended.reason == "stopped by the program"


async def test_listing_never_creates_a_file(tmp_path: Path) -> None:
    trigger = Trigger(store=f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(Exception, match="no store"):
        await trigger.list_assistants()
    assert list(tmp_path.iterdir()) == []


async def test_a_room_that_is_none_cannot_be_started_by_hand(tmp_path: Path) -> None:
    trigger = Trigger(store=f"sqlite:///{tmp_path}/none.db")
    for verb in (trigger.start_assistant, trigger.stop_assistant):
        with pytest.raises(Exception, match=re.escape("https://your-subdomain.whereby.com/your-room")):
            await verb("https://example.com/room")
