"""Listeners of the success, of a webhook type and of custom events are called in order, each whatever others do."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage import Stage
from tests.support.until import eventually
from whereby_trigger import TRIGGER_EVENT_SUCCESS, RoomClientJoined, Trigger, TriggerSuccess
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio


def firing() -> Trigger:
    return Trigger(webhook_triggers={"room.client.joined": lambda: True})


async def test_a_success_tells_the_room_the_webhook_and_the_attempt() -> None:
    trigger = firing()
    heard: list[TriggerSuccess] = []
    trigger.on(TRIGGER_EVENT_SUCCESS, heard.append)
    sent = webhook("room.client.joined", room="/visit-1", subdomain="Acme")
    async with trigger.testing() as t:
        await t.deliver(sent)
    assert heard == [TriggerSuccess("https://acme.whereby.com/visit-1", sent, attempt=1)]


async def test_listeners_are_called_in_the_order_of_their_registration_the_successs_first() -> None:
    trigger = firing()
    heard: list[str] = []

    @trigger.on("room.client.joined")
    async def by_type(webhook: RoomClientJoined) -> None:
        heard.append("by type")

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def first() -> None:
        heard.append("first")

    trigger.on(TRIGGER_EVENT_SUCCESS, lambda: heard.append("second"))

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def third(success: TriggerSuccess) -> None:
        heard.append("third")

    async with trigger.testing() as t:
        await t.deliver(webhook("room.client.joined"))
    assert heard == ["first", "second", "third", "by type"]


async def test_a_listener_by_type_hears_of_every_such_webhook_whatever_its_predicate_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.predicates.BACKOFF", (0.0, 0.0))
    answers: dict[str, Any] = {"/yes": True, "/no": False, "/none": None}

    def predicate(webhook: RoomClientJoined) -> bool:
        return answers[webhook.data.room_name]  # type: ignore[no-any-return]

    trigger = Trigger(webhook_triggers={"room.client.joined": predicate})
    heard: list[str] = []
    trigger.on("room.client.joined", lambda webhook: heard.append(webhook.data.room_name))
    async with trigger.testing() as t:
        decisions = [await t.deliver(webhook("room.client.joined", room=room)) for room in (*answers, "/raises")]
    assert [decision.state for decision in decisions] == [State.FIRED, State.SKIPPED, State.FAILED, State.FAILED]
    assert heard == ["/yes", "/no", "/none", "/raises"]


async def test_a_listener_registered_with_once_is_called_once() -> None:
    trigger = firing()
    heard: list[str] = []
    trigger.once(TRIGGER_EVENT_SUCCESS, lambda: heard.append("once"))
    trigger.on(TRIGGER_EVENT_SUCCESS, lambda: heard.append("always"))
    async with trigger.testing() as t:
        for number in range(3):
            await t.deliver(webhook("room.client.joined", room=f"/visit-{number}"))
    assert heard == ["once", "always", "always", "always"]
    assert len(trigger.listeners(TRIGGER_EVENT_SUCCESS)) == 1


async def test_a_listener_registered_with_once_is_called_once_when_many_rooms_fire_at_once() -> None:
    trigger = firing()
    heard: list[str] = []
    trigger.once(TRIGGER_EVENT_SUCCESS, lambda success: heard.append(success.room_url))
    async with trigger.testing() as t:
        await asyncio.gather(*(t.deliver(webhook("room.client.joined", room=f"/{n}")) for n in range(50)))
    assert len(heard) == 1


async def test_off_removes_the_newest_registration_and_tells_whether_there_was_one() -> None:
    trigger = Trigger()

    def listener() -> None: ...
    def other() -> None: ...

    for function in (listener, other, listener):
        trigger.on("own", function)
    assert trigger.off("own", listener) is True
    assert trigger.listeners("own") == [listener, other]
    assert trigger.off("own", listener) is True
    assert trigger.off("own", listener) is False
    assert trigger.off("never heard of", other) is False
    assert trigger.listeners("own") == [other]
    assert trigger.listeners("never heard of") == []


async def test_a_bound_method_can_be_removed() -> None:
    trigger = Trigger()
    heard: list[Any] = []
    trigger.on("own", heard.append)
    assert trigger.off("own", heard.append) is True
    assert await trigger.emit("own", 1) is False


async def test_emit_tells_whether_anyone_listened_and_hands_over_the_payload() -> None:
    trigger = Trigger()
    heard: list[Any] = []
    assert await trigger.emit("bill.paid", 3) is False
    trigger.on("bill.paid", heard.append)

    @trigger.on("bill.paid")
    async def later(payload: Any) -> None:
        heard.append(payload)

    assert await trigger.emit("bill.paid", 3) is True
    assert heard == [3, 3]


async def test_emit_tells_that_nobody_listened_when_the_only_listener_is_used_up() -> None:
    trigger = Trigger()
    trigger.once("own", lambda: None)
    assert [await trigger.emit("own"), await trigger.emit("own")] == [True, False]


async def test_what_listeners_of_ones_own_events_raise_is_not_raised_to_the_emitter() -> None:
    trigger = Trigger()
    heard: list[str] = []

    @trigger.on("own")
    def fail() -> None:
        raise SystemExit

    @trigger.on("own")
    async def fail_async() -> None:
        raise SystemExit

    trigger.on("own", lambda: heard.append("called"))
    assert await trigger.emit("own") is True
    assert heard == ["called"]


async def test_sync_listeners_of_ones_own_events_share_the_thread_of_the_predicates() -> None:
    threads: set[int] = set()

    def predicate() -> bool:
        threads.add(threading.get_ident())
        return True

    trigger = Trigger(webhook_triggers={"room.client.joined": predicate})

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def pass_on() -> None:
        await trigger.emit("own")

    trigger.on("own", lambda: threads.add(threading.get_ident()))
    async with trigger.testing() as t:
        await t.deliver(webhook("room.client.joined"))
    assert len(threads) == 1


async def test_a_listener_that_raises_is_recorded_with_the_decision_and_not_called_again() -> None:
    trigger = firing()
    calls: list[str] = []

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    def sync_fails() -> None:
        calls.append("sync")
        raise LookupError("no such bot")

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def async_fails() -> None:
        calls.append("async")
        raise ConnectionError("no network")

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def works() -> None:
        calls.append("works")

    async with trigger.testing() as t:
        decision = await t.deliver(webhook("room.client.joined"))
        (stored,) = await t.stored()
        assert decision.state is stored.state is State.FIRED
        assert calls == ["sync", "async", "works"]
        recorded = sorted(stored.errors)
    assert [error.partition(" (at ")[0] for error in recorded] == [
        "listener async_fails: ConnectionError",
        "listener sync_fails: LookupError",
    ]
    assert recorded[0].endswith("no network")


async def test_what_an_async_listener_raises_after_the_decision_is_added_to_it(tmp_path: Path) -> None:
    trigger = firing()
    decided = asyncio.Event()

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def late() -> None:
        await decided.wait()
        raise ConnectionError("later")

    sent = webhook("room.client.joined")
    async with Stage(trigger, tmp_path) as stage:
        await stage.deliver(sent)
        assert (await stage.decision(sent)).errors == ()
        decided.set()

        async def errors() -> tuple[str, ...]:
            return (await stage.records())[0].errors

        assert [error.partition(" (at ")[0] for error in await eventually(errors)] == ["listener late: ConnectionError"]


async def test_async_listeners_run_beside_each_other_and_hold_up_no_decision(tmp_path: Path) -> None:
    trigger = firing()
    running = 0
    end = asyncio.Event()

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def assist() -> None:
        nonlocal running
        running += 1
        await end.wait()

    async with Stage(trigger, tmp_path, predicate_timeout=0.05) as stage:
        for number in range(100):
            sent = webhook("room.client.joined", room="/visit-1")
            await stage.deliver(sent)
            assert (await stage.decision(sent)).state is State.FIRED
            assert running == number + 1
        end.set()


async def test_a_sync_listener_that_hangs_is_left_behind_at_the_limit_and_recorded(tmp_path: Path) -> None:
    trigger = firing()
    let_go = threading.Event()
    heard: list[str] = []

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    def hang() -> None:
        let_go.wait()

    trigger.on(TRIGGER_EVENT_SUCCESS, lambda: heard.append("next"))
    sent = webhook("room.client.joined")
    async with Stage(trigger, tmp_path, predicate_timeout=0.05) as stage:
        await stage.deliver(sent)
        decision = await stage.decision(sent)
        let_go.set()
    assert decision.state is State.FIRED
    assert [error.partition(" (at ")[0] for error in decision.errors] == [
        "listener hang: LeftBehind: took longer than 0.05 s"
    ]
    assert heard == ["next"]


async def test_a_listener_may_return_anything_and_what_can_be_awaited_is_awaited() -> None:
    trigger = firing()
    heard: list[str] = []

    async def later() -> None:
        heard.append("awaited")

    trigger.on(TRIGGER_EVENT_SUCCESS, lambda: later())
    trigger.on(TRIGGER_EVENT_SUCCESS, lambda: "a text")
    trigger.on(TRIGGER_EVENT_SUCCESS, lambda: False)
    async with trigger.testing() as t:
        decision = await t.deliver(webhook("room.client.joined"))
    assert (decision.state, decision.errors, heard) == (State.FIRED, (), ["awaited"])


async def test_a_webhook_that_is_named_like_the_success_does_not_pass_for_one() -> None:
    trigger = Trigger()
    heard: list[Any] = []
    trigger.on(TRIGGER_EVENT_SUCCESS, heard.append)
    async with trigger.testing() as t:
        body = webhook("room.client.joined").raw.replace(b"room.client.joined", b"trigger_event_success")
        decision = await t.deliver(body)
    assert (decision.state, heard) == (State.UNHANDLED, [])


async def test_every_async_listener_has_begun_before_its_decision_is_handed_to_the_store(tmp_path: Path) -> None:
    trigger = firing()
    story: list[str] = []

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def begin() -> None:
        story.append("begun")

    sent = webhook("room.client.joined")
    async with Stage(trigger, tmp_path) as stage:
        decide = stage.store.decide

        def noted(decision: Any) -> Any:
            story.append("handed over")
            return decide(decision)

        stage.store.decide = noted  # type: ignore[method-assign]
        await stage.deliver(sent)
        await stage.decision(sent)
    assert story == ["begun", "handed over"]
