"""A predicate with a second argument gets who is in the room at that moment, as the store knows it."""

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.arrivals import ROOM
from tests.support.stage import Stage
from tests.support.until import eventually
from whereby_trigger import Hold, Presence, RegistrationError, Session, Trigger
from whereby_trigger.decide import decider
from whereby_trigger.decide.decider import Presences
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import State
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio


def two_people(webhook: Any, presence: Presence) -> bool:
    return presence.humans is not None and presence.humans >= 2


def joined(humans: int, **fields: Any) -> Any:
    return webhook("room.client.joined", num_clients=humans, num_clients_by_role_name={"host": humans}, **fields)


async def test_a_predicate_is_asked_with_who_is_in_the_room() -> None:
    async with Trigger(webhook_triggers={"room.client.joined": two_people}).testing() as t:
        alone = await t.deliver(joined(1))
        elsewhere = await t.deliver(joined(1, room="/elsewhere"))
        both = await t.deliver(joined(2))
    assert [alone.state, elsewhere.state, both.state] == [State.SKIPPED, State.SKIPPED, State.FIRED]


async def test_a_webhook_without_counts_finds_out_who_is_there() -> None:
    seen: list[Presence] = []
    trigger = Trigger()

    @trigger.when("room.session.started")
    async def started(webhook: Any, presence: Presence) -> bool:
        seen.append(presence)
        return True

    async with trigger.testing() as t:
        await t.deliver(webhook("room.session.started", room="/unknown"))
        counted = joined(2)
        await t.deliver(counted)
        await t.deliver(webhook("room.session.started"))
    assert seen == [Presence(), Presence(2, 0, counted.created_at, counted.created_at, counted.data.room_session_id)]


async def test_a_webhook_that_names_no_room_finds_nobody_known() -> None:
    seen: list[Presence] = []

    def remember(webhook: Any, presence: Presence) -> bool:
        seen.append(presence)
        return False

    async with Trigger(webhook_triggers={"room.client.joined": remember}).testing() as t:
        await t.deliver(joined(2, subdomain=""))
    assert seen == [Presence()]


async def test_a_program_that_does_not_use_who_is_in_a_room_writes_nothing() -> None:
    async with Trigger(webhook_triggers={"room.client.joined": lambda: True}).testing() as t:
        await t.deliver(joined(2))
        assert (await t._store.presences(frozenset({ROOM})))[ROOM] == Presence()


async def test_a_program_with_an_assistant_writes_who_is_in_a_room() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: False})

    @trigger.assistant
    async def scribe(session: Any) -> None: ...

    async with trigger.testing() as t:
        await t.deliver(joined(2))
        assert (await t._store.presences(frozenset({ROOM})))[ROOM].humans == 2


class Counted(SqliteStore):
    """Count the reads of presences; while the store is away, they fail."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reads: list[frozenset[str]] = []
        self.away = False

    def presences(self, keys: frozenset[str]) -> Awaitable[dict[str, Presence]]:
        self.reads.append(keys)
        return self._fail() if self.away else super().presences(keys)

    async def _fail(self) -> dict[str, Presence]:
        raise StoreUnavailable("the store cannot be read now")


async def test_what_is_asked_in_one_turn_of_the_loop_is_one_read(tmp_path: Path) -> None:
    store = Counted(f"sqlite:///{tmp_path}/a.db")
    await store.open(lambda: None)
    presences = Presences(store)
    rooms = [f"{ROOM}-{n % 50}" for n in range(100)]
    asked = [presences.of(room) for room in rooms]
    asked[0].cancel()
    assert await asyncio.gather(*asked[1:]) == [Presence()] * 99
    assert store.reads == [frozenset(rooms)]
    assert await presences.of(ROOM) == Presence()
    assert store.reads[1:] == [frozenset({ROOM})]
    await store.close()


async def test_a_webhook_with_a_count_is_decided_without_another_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is, only a webhook that waited for its turn is older.
    monkeypatch.setattr(decider, "AS_STORED", 60.0)
    stage = Stage(Trigger(webhook_triggers={"room.client.joined": two_people}), tmp_path)
    stage.store = store = Counted(stage.settings.store)
    async with stage:
        # A webhook that comes as the replica starts may be read back with the backlog.
        await stage.deliver(alone := joined(1))
        assert (await stage.decision(alone)).state is State.SKIPPED
        store.reads.clear()
        await stage.deliver(both := joined(2))
        assert (await stage.decision(both)).state is State.FIRED
    assert not store.reads


async def test_a_webhook_whose_commit_took_long_is_decided_without_another_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decider, "AS_STORED", 60.0)
    stage = Stage(Trigger(webhook_triggers={"room.client.joined": two_people}), tmp_path)
    stage.store = store = Counted(stage.settings.store)
    async with stage:
        await stage.deliver(first := joined(1))
        await stage.decision(first)
        store.reads.clear()
        await stage.deliver(both := joined(2), received_at=time.time() - 61)
        assert (await stage.decision(both)).state is State.FIRED
    assert not store.reads


async def test_a_webhook_waits_in_its_place_while_who_is_in_its_room_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decider, "AS_STORED", 0.0)
    asked: list[str] = []

    def remember(webhook: Any, presence: Presence) -> bool:
        asked.append(webhook.id)
        return two_people(webhook, presence)

    stage = Stage(Trigger(webhook_triggers={"room.client.joined": remember}), tmp_path)
    stage.store = store = Counted(stage.settings.store)
    first, second = joined(2, id="first"), joined(2, id="second")
    async with stage:
        store.away = True
        await stage.deliver(first)
        await stage.deliver(second)
        await eventually(lambda: len(store.reads) > 1)
        assert not asked
        store.away = False
        assert (await stage.decision(second)).state is State.FIRED
    assert asked == ["first", "second"]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
async def test_a_hold_is_put_in_words_in_every_zone_however_early_its_webhook_says_it_was_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    early = joined(2, created_at=datetime.min.replace(tzinfo=UTC))
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        async with Stage(Trigger(webhook_triggers={"room.client.joined": Hold(two_people, 30)}), tmp_path) as stage:
            await stage.deliver(early)
            decision = await stage.decision(early)
    time.tzset()
    assert decision.state is State.HELD
    assert decision.reason.startswith("held for 30 s: 2 humans since ")


@pytest.mark.parametrize("hold", [None, 30])
async def test_the_first_predicate_that_needs_presence_is_refused_once_the_trigger_runs(hold: float | None) -> None:
    trigger = Trigger()
    function = two_people if hold is None else lambda: True
    async with trigger.testing():
        trigger.when("room.client.left")(lambda webhook: True)
        with pytest.raises(RegistrationError, match="register it before the trigger starts"):
            trigger.when("room.client.joined", hold=hold)(function)
    trigger.when("room.client.joined", hold=hold)(function)
    async with trigger.testing() as t:
        trigger.when("room.client.knocked")(two_people)
        assert (await t.deliver(joined(2))).state is (State.FIRED if hold is None else State.HELD)


async def test_beside_an_assistant_a_predicate_that_needs_presence_may_be_registered_at_any_time() -> None:
    trigger = Trigger()

    @trigger.assistant
    async def stays(session: Session) -> None: ...

    async with trigger.testing() as t:
        trigger.when("room.client.joined")(two_people)
        assert (await t.deliver(joined(2))).state is State.FIRED
