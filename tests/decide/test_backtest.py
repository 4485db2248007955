"""A backtest asks with what was known at that time, leaves out what it cannot ask, and has no other effect."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.support.arrivals import arrival, decision, holding
from whereby_trigger import LifecycleError, Presence, Trigger, Webhook
from whereby_trigger.decide import UserCode
from whereby_trigger.decide import backtest as module
from whereby_trigger.decide.backtest import Backtest, Scope, Summary
from whereby_trigger.decide.predicates import DIED, Judgement
from whereby_trigger.errors import AppError
from whereby_trigger.receive import Accepted, Rules, intake
from whereby_trigger.store import PastWebhook, Query, State, Store
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import PERSONAL, redacted

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
JOINED, LEFT = "room.client.joined", "room.client.left"
ROOM = "acme.whereby.com/visit-1"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = SqliteStore(f"sqlite:///{tmp_path}/past.db")
    await store.open(lambda: None)
    yield store
    await store.close()


@pytest.fixture
async def user_code() -> AsyncIterator[UserCode]:
    user_code = UserCode(10)
    yield user_code
    await user_code.drain(0)
    user_code.close()


def webhook_of(humans: int, type: str = JOINED, **fields: Any) -> Webhook:
    by_role = {"visitor": humans} if humans else {}
    sent: Webhook = webhook(type, num_clients=humans, num_clients_by_role_name=by_role, **fields)
    return sent


async def past(
    store: Store,
    sent: Webhook,
    state: State,
    at: float,
    *,
    decided_at: float | None = None,
    reason: str = "predicate f returned True",
    replayed_at: float | None = None,
) -> None:
    """Store a webhook that was received and decided at some time; its counts are from its reception."""
    verdict = intake((), sent.raw, at, Rules(allow_unsigned=True))
    assert isinstance(verdict, Accepted)
    added = await store.add(verdict.arrival)
    if replayed_at is not None:
        await store.decide(decision(added.seq, sent.id))
        await store.replay(Query(ids=(sent.id,)), replayed_at)
        await store.take_over()
    if state is not State.PENDING:
        moment = at if replayed_at is None else replayed_at
        made = decision(added.seq, sent.id, state, reason=reason, decided_at=decided_at or moment)
        assert await store.decide(made)


class Asked:
    """Ask the predicates of a trigger about a store, and keep the decisions that differ."""

    def __init__(self, store: Store, user_code: UserCode, **settings: Any) -> None:
        self.store, self.user_code, self.settings = store, user_code, {"max_age": 7200.0, "now": NOW + 1e6} | settings
        self.otherwise: list[tuple[str, State, str]] = []

    async def __call__(self, trigger: Trigger, scope: Scope | None = None) -> Summary:
        def tell(past: PastWebhook, judged: Judgement) -> None:
            self.otherwise.append((past.id, judged.state, judged.reason))

        backtest = Backtest(
            self.store,
            trigger.predicates,
            lambda type: bool(trigger.listeners(type)),
            self.user_code,
            scope or Scope(),
            tell,
            **self.settings,
        )
        return await backtest.run(lambda seq: None)


@pytest.fixture
def ask(store: Store, user_code: UserCode) -> Asked:
    return Asked(store, user_code)


def created(at: float) -> dict[str, Any]:
    return {"created_at": datetime.fromtimestamp(at, UTC)}


def two_people(webhook: Any, presence: Presence) -> bool:
    return presence.humans is not None and presence.humans >= 2


def triggering(*types: str, predicate: Callable[..., Any] = two_people, hold: float | None = None) -> Trigger:
    trigger = Trigger()
    for type in types:
        trigger.predicates.register(type, predicate, hold)
    return trigger


async def test_who_was_in_a_room_is_known_from_the_webhooks_before_those_that_are_asked(
    store: Store, ask: Asked
) -> None:
    await past(store, webhook_of(2, id="a", **created(NOW)), State.FIRED, NOW)
    started = webhook("room.session.started", id="b", **created(NOW + 100))
    await past(store, started, State.SKIPPED, NOW + 100)
    summary = await ask(triggering(JOINED, "room.session.started"), Scope(since=NOW + 50))
    assert ask.otherwise == [("b", State.FIRED, "predicate two_people returned True")]
    assert summary.asked == 1


async def test_a_webhook_that_was_replayed_is_asked_with_who_was_there_when_it_was(store: Store, ask: Asked) -> None:
    replayed = webhook("room.session.started", id="a", **created(NOW))
    await past(store, replayed, State.SKIPPED, NOW, replayed_at=NOW + 1000)
    await past(store, webhook_of(2, id="b", **created(NOW + 500)), State.FIRED, NOW + 500)
    await past(store, webhook_of(1, LEFT, id="c", **created(NOW + 2000)), State.UNHANDLED, NOW + 2000)
    await ask(triggering(JOINED, "room.session.started"))
    assert ask.otherwise == [("a", State.FIRED, "predicate two_people returned True")]


async def test_a_hold_is_followed_by_the_counts_that_came_while_it_lasted(store: Store, ask: Asked) -> None:
    for n, (at, humans, type) in enumerate([(0, 2, JOINED), (12, 1, LEFT), (100, 2, JOINED), (131, 0, LEFT)]):
        state = State.FIRED if type == JOINED else State.UNHANDLED
        await past(store, webhook_of(humans, type, id=str(n), **created(NOW + at)), state, NOW + at)
    summary = await ask(triggering(JOINED, hold=30))
    assert ask.otherwise == [("0", State.SKIPPED, "predicate two_people returned False, no longer true after 12 s")]
    assert summary.would_be == {State.SKIPPED: 1, State.FIRED: 1}


async def test_a_hold_that_is_not_due_yet_is_still_held(store: Store, user_code: UserCode) -> None:
    await past(store, webhook_of(2, id="a", **created(NOW)), State.FIRED, NOW)
    ask = Asked(store, user_code, now=NOW + 29)
    await ask(triggering(JOINED, hold=30))
    assert [(id, state) for id, state, _ in ask.otherwise] == [("a", State.HELD)]


async def test_counts_after_the_last_webhook_asked_about_still_end_a_hold(store: Store, ask: Asked) -> None:
    await past(store, webhook_of(2, id="a", **created(NOW)), State.FIRED, NOW)
    await past(store, webhook_of(0, LEFT, id="b", **created(NOW + 20)), State.UNHANDLED, NOW + 20)
    summary = await ask(triggering(JOINED, hold=30), Scope(until=NOW + 10))
    assert [(id, state) for id, state, _ in ask.otherwise] == [("a", State.SKIPPED)]
    assert summary.asked == 1


async def test_what_was_too_old_to_be_decided_still_is_and_a_longer_max_age_is_tried(
    store: Store, user_code: UserCode
) -> None:
    reason = "older than max_age (60 s) when it was first decided"
    await past(store, webhook_of(2, id="a", **created(NOW)), State.SKIPPED, NOW, decided_at=NOW + 90, reason=reason)
    same, longer = Asked(store, user_code, max_age=60.0), Asked(store, user_code, max_age=100.0)
    await same(triggering(JOINED))
    await longer(triggering(JOINED))
    assert same.otherwise == []
    assert longer.otherwise == [("a", State.FIRED, "predicate two_people returned True")]


async def test_a_webhook_that_was_decided_late_is_asked_with_who_was_there_by_then(store: Store, ask: Asked) -> None:
    for id, late in (("late", 100.0), ("soon", 20.0)):
        sent = webhook("room.session.started", id=id, room=f"/{id}", **created(NOW))
        await past(store, sent, State.SKIPPED, NOW, decided_at=NOW + late)
    for id in ("late", "soon"):
        await past(store, webhook_of(2, id=f"{id}-2", room=f"/{id}", **created(NOW + 10)), State.FIRED, NOW + 10)
    await ask(triggering(JOINED, "room.session.started"))
    assert [(id, state) for id, state, _ in ask.otherwise] == [("late", State.FIRED)]


async def test_a_held_webhook_that_nobody_asked_about_when_it_was_due_is_still_too_old(
    store: Store, user_code: UserCode
) -> None:
    now = time.time()
    await past(store, webhook_of(2, id="a"), State.PENDING, now)
    (pending,) = await store.history(0, 1)
    await store.hold(holding(pending.seq, "a", 30))
    await store.ask_again([pending.seq])
    made = decision(pending.seq, "a", State.SKIPPED, decided_at=now + 30 + 100)
    assert await store.decide(made)
    same, longer = (Asked(store, user_code, max_age=max_age, now=now + 1e6) for max_age in (60.0, 200.0))
    await same(triggering(JOINED, hold=30))
    await longer(triggering(JOINED, hold=30))
    assert same.otherwise == []
    assert [(id, state) for id, state, _ in longer.otherwise] == [("a", State.FIRED)]


async def test_what_cannot_be_asked_is_counted_with_the_reason(store: Store, ask: Asked) -> None:
    def whole(webhook: Any) -> bool:
        return True

    await past(store, webhook_of(1, id="pending"), State.PENDING, NOW)
    await past(store, webhook("recording.finished", id="no predicate"), State.NOTIFIED, NOW)
    await past(store, webhook_of(1, id="poison"), State.FAILED, NOW, reason=f"{DIED}, 3 times")
    whole_body = webhook_of(1, id="redacted")
    await past(store, structs.replace(whole_body, raw=redacted(whole_body.raw, PERSONAL)), State.FIRED, NOW)
    unreadable = structs.replace(webhook_of(1, id="unreadable"), raw=b'{"id": "unreadable", "type": 7}')
    await store.add(arrival("odd", type="", state=State.QUARANTINED, reason="the body is not JSON"))
    added = await store.add(arrival("unreadable", body=unreadable.raw))
    assert await store.decide(decision(added.seq, "unreadable"))
    summary = await ask(triggering(JOINED, predicate=whole))
    assert summary.asked == 0
    assert ask.otherwise == []
    assert summary.not_asked == {
        module.UNDECIDED_YET: 1,
        module.NO_PREDICATE: 1,
        module.POISON: 1,
        module.REDACTED: 1,
        module.QUARANTINED: 1,
        module.UNREADABLE: 1,
    }


async def test_a_predicate_that_is_gone_makes_a_difference(store: Store, ask: Asked) -> None:
    await past(store, webhook_of(2, id="a"), State.FIRED, NOW)
    await past(store, webhook_of(2, LEFT, id="b"), State.SKIPPED, NOW)
    trigger = triggering("assistant.requested", predicate=lambda: True)
    trigger.on(LEFT, lambda: None)
    await ask(trigger)
    assert [(id, state) for id, state, _ in ask.otherwise] == [("a", State.UNHANDLED), ("b", State.NOTIFIED)]


async def test_only_the_room_the_type_and_the_time_that_are_selected_are_asked(store: Store, ask: Asked) -> None:
    await past(store, webhook_of(2, id="a", room="/visit-1"), State.SKIPPED, NOW)
    await past(store, webhook_of(2, id="b", room="/visit-2"), State.SKIPPED, NOW + 1)
    await past(store, webhook_of(2, LEFT, id="c", room="/visit-1"), State.SKIPPED, NOW + 2)
    await past(store, webhook_of(2, id="d", room="/visit-1"), State.SKIPPED, NOW + 3)
    trigger = triggering(JOINED, LEFT)
    for scope, ids in [
        (Scope(room="/visit-1"), "acd"),
        (Scope(room=ROOM, type=JOINED), "ad"),
        (Scope(since=NOW + 1, until=NOW + 3), "bc"),
        (Scope(since=NOW + 4), ""),
        (Scope(room="/visit"), ""),
    ]:
        ask.otherwise.clear()
        await ask(trigger, scope)
        assert [id for id, *_ in ask.otherwise] == list(ids), scope


async def test_nothing_is_written_no_listener_called_and_no_assistant_asked_for(store: Store, ask: Asked) -> None:
    await past(store, webhook_of(2, id="a"), State.SKIPPED, NOW)
    trigger, called = triggering(JOINED), list[Any]()
    trigger.on("trigger_event_success", called.append)
    trigger.on(JOINED, called.append)
    before = await store.find(Query())
    await ask(trigger)
    assert [state for _, state, _ in ask.otherwise] == [State.FIRED]
    assert (await store.find(Query()), await store.rooms(), called) == (before, [], [])


def calling(call: Callable[[Trigger], Awaitable[Any]]) -> Trigger:
    """Build a trigger whose predicate calls something, and swallows its exceptions."""
    trigger = Trigger()

    @trigger.when("room.client.joined")
    async def does_more(webhook: Any) -> bool:
        try:
            await call(trigger)
        except Exception:
            return False
        return True

    return trigger


async def _opened(trigger: Trigger) -> None:
    await SqliteStore("sqlite:///never.db").open(lambda: None)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda trigger: trigger.start_assistant(f"https://{ROOM}"), "trigger.start_assistant()"),
        (lambda trigger: trigger.stop_assistant(f"https://{ROOM}"), "trigger.stop_assistant()"),
        (lambda trigger: trigger.emit("mine"), "trigger.emit()"),
        (lambda trigger: trigger.serve(), "trigger.serve()"),
        (lambda trigger: trigger.__aenter__(), "async with trigger"),
        (_opened, "opening a store to write"),
    ],
)
async def test_a_predicate_that_does_more_than_answer_ends_the_backtest(
    store: Store, ask: Asked, call: Callable[[Trigger], Awaitable[Any]], name: str, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    await past(store, webhook_of(2, id="a"), State.FIRED, NOW)
    with pytest.raises(LifecycleError) as raised:
        await ask(calling(call))
    assert str(raised.value).startswith(f"{name} was called at {__file__}:")
    assert not (tmp_path / "never.db").exists()
    assert await Trigger().emit("mine") is False, "the calls work again"


async def test_predicates_that_hang_end_the_backtest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.decide.user_code.MAX_HUNG", 2)
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    for n in range(4):
        await past(store, webhook_of(2, id=str(n)), State.FIRED, NOW)
    release, user_code = threading.Event(), UserCode(0.01)

    def hangs(webhook: Any) -> bool:
        return release.wait(60)

    try:
        with pytest.raises(AppError, match=r"2 calls hang: .*hangs.* at "):
            await Asked(store, user_code)(triggering(JOINED, predicate=hangs))
    finally:
        release.set()
        user_code.close()


async def test_a_predicate_that_raises_is_asked_three_times_at_once(store: Store, ask: Asked) -> None:
    asked = []

    def raises(webhook: Any) -> bool:
        asked.append(webhook.id)
        raise KeyError("x")

    await past(store, webhook_of(2, id="a"), State.FIRED, NOW)
    begun = time.monotonic()
    await ask(triggering(JOINED, predicate=raises))
    assert asked == ["a"] * 3
    assert ask.otherwise == [("a", State.FAILED, "predicate raises raised KeyError, 3 times")]
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("is_async", [False, True])
async def test_each_room_is_asked_about_in_order_across_pages(
    store: Store, ask: Asked, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    asked: list[str] = []

    def sync(webhook: Any) -> bool:
        asked.append(webhook.id)
        return True

    async def later(webhook: Any) -> bool:
        for _ in range(int(webhook.id) % 3):
            await asyncio.sleep(0)
        return sync(webhook)

    for n in range(40):
        await past(store, webhook_of(2, id=str(n), room=f"/visit-{n % 2}"), State.FIRED, NOW + n)
    summary = await ask(triggering(JOINED, predicate=later if is_async else sync))
    assert summary.asked == 40
    for room in (0, 1):
        in_room = [int(id) for id in asked if int(id) % 2 == room]
        assert in_room == sorted(in_room)
        assert len(in_room) == 20
