"""Every webhook ends in one state, with a reason in words."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage import Stage
from whereby_trigger import Trigger, TriggerSuccess
from whereby_trigger.store import Query, State
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

WITHOUT_SUBDOMAIN = "predicate visits returned True, but no subdomain in the webhook: set subdomain=…"


def visits(webhook: Any) -> bool:
    return "visit" in webhook.data.room_name


def asking(predicate: Any) -> Trigger:
    return Trigger(webhook_triggers={"room.client.joined": predicate})


async def test_a_webhook_is_pending_until_its_predicate_has_answered(tmp_path: Path) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def predicate() -> bool:
        asked.set()
        await answer.wait()
        return True

    sent = webhook("room.client.joined")
    async with Stage(asking(predicate), tmp_path) as stage:
        await stage.deliver(sent)
        await asked.wait()
        assert [record.state for record in await stage.records()] == [State.PENDING]
        answer.set()
        await stage.decision(sent)
        assert [record.state for record in await stage.records()] == [State.FIRED]


async def test_true_fires_and_false_skips_each_with_the_predicates_name() -> None:
    async with asking(visits).testing() as t:
        fired = await t.deliver(webhook("room.client.joined", room="/visit-1"))
        skipped = await t.deliver(webhook("room.client.joined", room="/lobby"))
    assert (fired.state, fired.reason) == (State.FIRED, "predicate visits returned True")
    assert (skipped.state, skipped.reason) == (State.SKIPPED, "predicate visits returned False")


async def test_a_skipped_join_of_a_bot_says_that_it_was_one() -> None:
    async with asking(visits).testing() as t:
        decision = await t.deliver(webhook("room.client.joined", room="/lobby", role_name="assistant"))
    assert decision.reason == "predicate visits returned False (a bot's own event: is_human)"


@pytest.mark.parametrize("type", ["room.client.joined", "transcription.finished", "recording.finished"])
async def test_a_type_that_nothing_handles_is_unhandled(type: str) -> None:
    async with Trigger().testing() as t:
        decision = await t.deliver(webhook(type))
    assert (decision.state, decision.reason) == (State.UNHANDLED, f"no predicate and no listener for {type}")


@pytest.mark.parametrize("type", ["room.client.left", "transcription.finished", "recording.finished"])
async def test_a_type_that_has_only_listeners_is_notified(type: str) -> None:
    trigger = Trigger()
    heard: list[Any] = []
    trigger.on(type, heard.append)
    sent = webhook(type)
    async with trigger.testing() as t:
        decision = await t.deliver(sent)
    assert decision.state is State.NOTIFIED
    assert decision.reason == "no predicate for its type; its listeners were called"
    assert heard == [sent]


NEW_TYPE = webhook("room.client.joined").raw.replace(b"room.client.joined", b"room.client.danced")


async def test_a_type_that_is_new_is_unhandled() -> None:
    async with asking(visits).testing() as t:
        assert (await t.deliver(NEW_TYPE)).state is State.UNHANDLED


async def test_a_listener_by_the_name_of_a_new_type_is_told_of_it() -> None:
    trigger = Trigger()
    heard: list[Any] = []
    trigger.on("room.client.danced", heard.append)
    async with trigger.testing() as t:
        assert (await t.deliver(NEW_TYPE)).state is State.NOTIFIED
    assert [webhook.raw for webhook in heard] == [NEW_TYPE]


@pytest.mark.parametrize(
    ("room", "subdomain", "reason"),
    [
        ("/visit-1", "", WITHOUT_SUBDOMAIN),
        (
            "/visit-1",
            "evil.example/x?",
            "predicate visits returned True, but the webhook's subdomain is not a host label",
        ),
        ("/visit/../x", "acme", "predicate visits returned True, but a part of the room name is nothing but dots"),
    ],
)
async def test_true_without_a_valid_room_fails_and_tells_no_listener(room: str, subdomain: str, reason: str) -> None:
    trigger = asking(visits)
    heard: list[TriggerSuccess] = []
    trigger.on("trigger_event_success", heard.append)
    async with trigger.testing() as t:
        decision = await t.deliver(webhook("room.client.joined", room=room, subdomain=subdomain))
    assert (decision.state, decision.reason) == (State.FAILED, reason)
    assert heard == []


async def test_the_subdomain_setting_makes_a_room_of_a_webhook_without_one() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": visits}, subdomain="Acme")
    heard: list[TriggerSuccess] = []
    trigger.on("trigger_event_success", heard.append)
    async with trigger.testing() as t:
        assert (await t.deliver(webhook("room.client.joined", subdomain=""))).state is State.FIRED
        assert (await t.deliver(webhook("room.client.joined", subdomain="other"))).state is State.FIRED
    assert [success.room_url for success in heard] == [
        "https://acme.whereby.com/visit-1",
        "https://other.whereby.com/visit-1",
    ]


async def test_false_for_a_webhook_without_a_room_skips() -> None:
    async with asking(lambda: False).testing() as t:
        assert (await t.deliver(webhook("room.client.joined", subdomain=""))).state is State.SKIPPED


async def test_what_is_older_than_max_age_is_skipped_unasked_and_nobody_is_told(tmp_path: Path) -> None:
    called: list[Any] = []
    trigger = asking(called.append)
    trigger.on("room.client.joined", called.append)
    sent = webhook("room.client.joined")
    async with Stage(trigger, tmp_path, max_age=60, drain_timeout=1) as stage:
        await stage.deliver(sent, received_at=time.time() - 61)
        decision = await stage.decision(sent)
    assert (decision.state, decision.attempts) == (State.SKIPPED, 0)
    assert decision.reason == "older than max_age (60 s) when it was first decided"
    assert called == []


async def test_what_is_not_quite_as_old_as_max_age_is_decided(tmp_path: Path) -> None:
    sent = webhook("room.client.joined")
    async with Stage(asking(visits), tmp_path, max_age=60, drain_timeout=1) as stage:
        await stage.deliver(sent, received_at=time.time() - 30)
        assert (await stage.decision(sent)).state is State.FIRED


async def test_a_replayed_webhook_is_decided_anew_whatever_its_age(tmp_path: Path) -> None:
    answers = [False, True]
    sent = webhook("room.client.joined")
    async with Stage(asking(lambda: answers.pop(0)), tmp_path, max_age=60, drain_timeout=1) as stage:
        await stage.deliver(sent, received_at=time.time() - 61)
        await stage.decision(sent)
        for state in (State.SKIPPED, State.FIRED):
            stage.forget(sent)
            other = SqliteStore(stage.settings.store)
            await other.open(lambda: None)
            assert await other.replay(Query(ids=(sent.id,)), time.time()) == [sent.id]
            await other.close()
            assert (await stage.decision(sent)).state is state
            (record,) = await stage.records()
            assert (record.state, record.attempts, record.deliveries) == (state, 1, 1)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"no json", b"\xff", b'{"id": "1"}', b"[" * 5000])
async def test_what_cannot_be_decoded_is_quarantined_once_with_its_body(body: bytes) -> None:
    async with asking(visits).testing() as t:
        decision = await t.deliver(body)
        assert (await t.deliver(body)).state is State.QUARANTINED
        (record,) = await t.stored()
    assert decision.state is record.state is State.QUARANTINED
    assert decision.reason == record.reason != ""
    assert (record.body, record.deliveries) == (body, 2)


async def test_a_body_of_ones_own_gets_its_decision() -> None:
    async with asking(visits).testing() as t:
        assert (await t.deliver(webhook("room.client.joined", room="/visit-1").raw)).state is State.FIRED


async def test_a_duplicate_is_decided_once_and_counted() -> None:
    asked: list[int] = []

    def predicate() -> bool:
        asked.append(1)
        return True

    sent = webhook("room.client.joined")
    async with asking(predicate).testing() as t:
        decisions = await asyncio.gather(*(t.deliver(sent) for _ in range(20)))
        (record,) = await t.stored()
    assert {decision.state for decision in decisions} == {State.FIRED}
    assert (len(asked), record.deliveries) == (1, 20)
