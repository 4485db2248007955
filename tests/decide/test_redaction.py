"""With `redact`, user code sees whole webhooks until their decision; the store, assistants and replays do not."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.arrivals import arrival, record
from tests.support.until import eventually
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Session, Trigger
from whereby_trigger.store import Query, State, Subject, forget
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

ADA = {"displayName": "Ada", "metadata": "sleepless", "externalId": "p-1"}
HIDDEN = "[[removed]]"


def joins(**data: Any) -> Any:
    return webhook("room.client.joined", data=ADA | data)


async def test_predicates_see_the_whole_webhook_and_the_store_keeps_the_rest() -> None:
    trigger, seen = Trigger(redact=("displayName", "metadata")), []

    @trigger.when("room.client.joined")
    def sees(webhook: Any) -> bool:
        seen.append((webhook.data.display_name, webhook.data.external_id))
        return True

    async with trigger.testing() as t:
        await t.deliver(joins())
        (stored,) = await t.stored()
        data = json.loads(stored.body)["data"]
        assert (data["displayName"], data["metadata"], data["externalId"]) == (HIDDEN, HIDDEN, "p-1")
        assert data["roomName"] == joins().data.room_name
        await t._store.replay(Query(ids=(stored.id,)), time.time())
        await eventually(lambda: len(seen) == 2)
    assert seen == [("Ada", "p-1"), (HIDDEN, "p-1")]


async def test_a_held_webhook_is_whole_until_it_is_decided() -> None:
    trigger, whole = Trigger(redact="displayName"), joins()
    trigger.when("room.client.joined", hold=3600)(lambda webhook: webhook.data.display_name == "Ada")
    async with trigger.testing() as t:
        assert (await t.deliver(whole)).state is State.HELD
        assert (await t.stored())[0].body == whole.raw


async def test_what_is_held_in_a_forgotten_room_never_fires() -> None:
    trigger = Trigger()
    fired: list[Any] = []
    trigger.when("room.client.joined", hold=30)(lambda webhook: True)
    trigger.on(TRIGGER_EVENT_SUCCESS)(fired.append)
    async with trigger.testing() as t:
        held = await t.deliver(joins())
        assert held.state is State.HELD
        key = (await t.stored())[0].room
        assert (await forget(t._store, Subject(room=key))).webhooks == 1
        await t.advance(60)
        assert fired == []
        assert [b"Ada" in one.body for one in await t.stored()] in ([], [False])


async def test_a_successor_starts_with_what_is_left_of_its_webhook() -> None:
    trigger = Trigger(redact=("displayName",))
    told: list[Any] = []
    trigger.when("room.client.joined")(lambda webhook: True)

    @trigger.assistant
    async def stays(session: Session) -> None:
        told.append(session.webhook)
        await session.ended.wait()

    async with trigger.testing(assistants="run") as t:
        first, second = t.meeting("/visit-1"), t.meeting("/visit-1")
        await first.join("host", name="Ada")
        await eventually(lambda: len(told) == 1)
        await second.join("host", name="Ada")
        await first.end()
        await eventually(lambda: len(told) == 2)
    assert [one.data.display_name for one in told] == [HIDDEN, HIDDEN]
    assert told[0].data.room_session_id != told[1].data.room_session_id


async def test_without_redact_the_body_stays_as_it_came() -> None:
    trigger, whole = Trigger(), joins()
    trigger.when("room.client.joined")(lambda webhook: True)
    async with trigger.testing() as t:
        await t.deliver(whole)
        assert (await t.stored())[0].body == whole.raw


async def test_an_assistant_is_given_what_is_stored_and_no_more() -> None:
    trigger = Trigger(redact="displayName")
    told: list[Any] = []
    trigger.when("room.client.joined")(lambda webhook: True)

    @trigger.assistant
    async def listens(session: Session) -> None:
        told.append(session.webhook)
        async for heard in session.webhooks():
            told.append(heard)

    async with trigger.testing(assistants="run") as t:
        await t.deliver(joins())
        await eventually(lambda: told)
        await t.deliver(webhook("room.client.knocked", data=ADA))
        await eventually(lambda: len(told) == 2)
    assert [(one.data.display_name, one.data.external_id) for one in told] == [(HIDDEN, "p-1")] * 2
    assert all(b"Ada" not in one.raw for one in told)


async def test_errors_of_user_code_are_kept_without_their_texts() -> None:
    trigger = Trigger(redact="displayName")

    @trigger.when("room.client.joined")
    def says_yes(webhook: Any) -> bool:
        return True

    @trigger.on("room.client.joined")
    def raises(webhook: Any) -> None:
        raise ValueError(webhook.data.display_name)

    async with trigger.testing() as t:
        await t.deliver(joins())
        assert [error.endswith("raised ValueError") for error in (await t.stored())[0].errors] == [True]


async def test_a_body_that_cannot_be_decoded_is_redacted_as_it_arrives() -> None:
    trigger = Trigger(redact="displayName")
    async with trigger.testing() as t:
        assert (await t.deliver(b'{"id": 7, "displayName": "Ada", "n": 1}')).state is State.QUARANTINED
        assert (await t.deliver(b'{"displayName": "Ada"')).state is State.QUARANTINED
        assert [one.body for one in await t.stored()] == [
            b'"[[removed]]"',
            b'{"id":7,"displayName":"[[removed]]","n":1}',
        ]


async def test_a_running_trigger_removes_old_bodies_and_empties_the_journal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    store = SqliteStore(url)
    await store.open(lambda: None)
    old = arrival("old", body=joins().raw, received_at=time.time() - 120, state=State.QUARANTINED, reason="odd")
    await store.add(old)
    journal = tmp_path / "store.db-wal"
    assert b"sleepless" in journal.read_bytes()
    async with Trigger(store=url, body_retention=60, secret="s", port=0, host="127.0.0.1"):

        async def is_removed() -> bool:
            return (await record(store, "old")).body_removed_at is not None

        await eventually(is_removed)
        await eventually(lambda: all(b"sleepless" not in file.read_bytes() for file in tmp_path.glob("store.db*")))
        assert (await record(store, "old")).state is State.QUARANTINED
    await store.close()
