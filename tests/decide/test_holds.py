"""Holds: a predicate must return True for some time, is asked again when its room changes, and fires once when due."""

import asyncio
import math
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.stage import Stage, leave_pending, settings_for, verdict_on
from tests.support.until import eventually
from whereby_trigger import (
    TRIGGER_EVENT_SUCCESS,
    Hold,
    Presence,
    RegistrationError,
    RoomClientJoined,
    Trigger,
    Webhook,
)
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Decision, Holding, Query, State, Store
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

HOLD = 30.0
SOON = 0.05
"""Seconds of a hold that a test waits for in real time."""


def people(type: str, id: str, humans: int, room: str = "/visit-1") -> Webhook:
    """Return a webhook with a count of `humans` people in a room."""
    by_role = {"visitor": humans} if humans else {}
    return webhook(type, id=id, room=room, num_clients=humans, num_clients_by_role_name=by_role)


def joined(id: str, humans: int, room: str = "/visit-1") -> Webhook:
    return people("room.client.joined", id, humans, room)


def left(id: str, humans: int, room: str = "/visit-1") -> Webhook:
    return people("room.client.left", id, humans, room)


class Program:
    """A program that fires when two people have stayed for some time, and records predicate and listener calls."""

    def __init__(self, hold: float = HOLD) -> None:
        self.asked: list[str] = []
        self.told: list[str] = []
        self.raising = False
        self.trigger = Trigger()
        self.trigger.when("room.client.joined", hold=hold)(self.two_people)
        self.trigger.on("room.client.joined", lambda webhook: self.told.append(f"joined {webhook.id}"))
        self.trigger.on(TRIGGER_EVENT_SUCCESS, lambda it: self.told.append(f"success {it.trigger_webhook.id}"))
        self.alone = False

    def two_people(self, webhook: RoomClientJoined, presence: Presence) -> bool:
        self.asked.append(webhook.id)
        if self.raising:
            raise OSError("no answer")
        return not self.alone and presence.humans is not None and presence.humans >= 2


async def outcome(stage: Stage, sent: Webhook) -> Decision:
    """Wait for the next outcome of a webhook."""
    decision = await asyncio.wait_for(stage.decision(sent), 20)
    stage.forget(sent)
    return decision


async def state_of(store: Store, id: str) -> State:
    (record,) = await store.find(Query(ids=(id,)))
    return record.state


async def held_on(stage: Stage, sent: Webhook) -> None:
    """Deliver a webhook and wait until it is held and nothing about its room is still to be checked."""
    await stage.deliver(sent)
    assert (await outcome(stage, sent)).state is State.HELD
    await eventually(lambda: len(stage.running.holds) >= 1 and not stage.running.dispatcher.behind)


async def test_it_fires_when_it_has_been_true_for_as_long_as_it_must(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await stage.deliver(join)
        held = await outcome(stage, join)
        assert held.state is State.HELD
        assert held.reason.startswith("held for 30 s: 2 humans since ")
        (record,) = await stage.records()
        assert (record.state, record.reason, record.decided_at) == (State.HELD, held.reason, None)
        assert record.due_at == pytest.approx(time.time() + 30, abs=10)
        stage.jump(HOLD - 10)
        await stage.running.hold_watch.look()
        assert await state_of(stage.store, "a") is State.HELD
        stage.jump(10)
        fired = await outcome(stage, join)
    assert (fired.state, fired.reason) == (State.FIRED, "predicate two_people returned True for 30 s")
    assert program.told == ["joined a", "success a"]


async def test_no_longer_true_while_it_is_held_skips_it(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        stage.jump(12)
        await stage.deliver(left("b", 1))
        skipped = await outcome(stage, join)
        stage.jump(HOLD)
        await stage.running.hold_watch.look()
    assert skipped.state is State.SKIPPED
    # The clock also runs in real time.
    after = re.fullmatch(r"predicate two_people returned False, no longer true after (\d+) s", skipped.reason)
    assert after is not None
    assert 12 <= int(after[1]) < HOLD
    assert program.told == ["joined a"]


async def test_no_longer_true_when_it_is_due_skips_it(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        program.alone = True
        stage.jump(HOLD)
        assert (await outcome(stage, join)).state is State.SKIPPED


async def test_a_change_after_which_it_is_still_true_does_not_begin_the_hold_again(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        stage.jump(HOLD - 10)
        await stage.deliver(left("b", 3))
        await eventually(lambda: program.asked.count("a") == 2)
        await eventually(lambda: len(stage.running.holds) == 1)
        assert (await stage.records())[0].reason.startswith("held for 30 s: 3 humans since ")
        stage.jump(10)
        assert (await outcome(stage, join)).state is State.FIRED
    assert program.told == ["joined a", "success a"]


async def test_it_is_asked_again_on_a_change_of_its_own_room_only(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        for sent in (left("b", 2), left("c", 1, "/visit-2"), webhook("room.session.started", room="/visit-1")):
            await stage.deliver(sent)
            await stage.decision(sent)
        await stage.running.hold_watch.look()
        assert program.asked == ["a"]
        assert len(stage.running.holds) == 1


async def test_a_held_webhook_blocks_nothing_behind_it_in_its_room(tmp_path: Path) -> None:
    program, join, behind = Program(), joined("a", 2), left("b", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        await stage.deliver(behind)
        assert (await outcome(stage, behind)).state is State.UNHANDLED
        assert await state_of(stage.store, "a") is State.HELD


async def test_a_change_while_the_hold_is_being_stored_is_not_missed(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        # Both are stored before the first is asked about, so it sees the count of the second only later, if at all.
        await asyncio.gather(stage.deliver(join), stage.deliver(left("b", 1)))
        await eventually(lambda: program.asked)
        last = await outcome(stage, join)
        while last.state is State.HELD:
            last = await outcome(stage, join)
    assert last.state is State.SKIPPED


async def test_an_error_while_it_is_held_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.decide.predicates.BACKOFF", (0.0, 0.0))
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        program.raising = True
        stage.jump(HOLD)
        assert (await outcome(stage, join)).state is State.FAILED


async def test_false_at_first_is_skipped_and_not_held(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 1)
    async with Stage(program.trigger, tmp_path) as stage:
        await stage.deliver(join)
        skipped = await outcome(stage, join)
    assert (skipped.state, skipped.reason) == (State.SKIPPED, "predicate two_people returned False")


async def test_a_presence_that_nobody_knows_is_said_to_be_unknown(tmp_path: Path) -> None:
    trigger, asked = Trigger(), webhook("assistant.requested", id="a")
    trigger.when("assistant.requested", hold=HOLD)(lambda: True)
    async with Stage(trigger, tmp_path) as stage:
        await stage.deliver(asked)
        assert (await outcome(stage, asked)).reason == "held for 30 s: who is in the room is unknown"


async def test_a_log_line_says_that_it_is_held_and_one_what_became_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "whereby_trigger.deliveries")
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        await stage.deliver(left("b", 3))
        await eventually(lambda: program.asked.count("a") == 2)
        await eventually(lambda: len(stage.running.holds) == 1)
        stage.jump(HOLD)
        await outcome(stage, join)
    told = [vars(record) for record in caplog.records if getattr(record, "webhook_id", "") == "a"]
    assert [fields["decision"] for fields in told] == ["held", "fired"]
    assert {fields["room"] for fields in told} == {"acme.whereby.com/visit-1"}


# Other replicas


async def test_what_another_replica_receives_has_it_asked_again(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage, Stage(program.trigger, tmp_path) as other:
        await held_on(stage, join)
        await other.deliver(left("b", 1))
        assert (await outcome(stage, join)).state is State.SKIPPED


async def test_what_another_replica_received_is_not_forgotten_if_the_store_cannot_be_read_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        monkeypatch.setattr("whereby_trigger.decide.pending.LOOK_EVERY", 0.0)
        newest = SqliteStore.newest

        async def away(store: SqliteStore) -> int:
            monkeypatch.setattr(SqliteStore, "newest", newest)
            raise StoreUnavailable("away")

        monkeypatch.setattr(SqliteStore, "newest", away)
        stage.running.holds.others_wrote = True
        with pytest.raises(StoreUnavailable):
            await stage.running.hold_watch.look()
        assert stage.running.holds.others_wrote


async def test_while_nobody_writes_a_poll_reads_no_presence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.decide.pending.LATE_COMMITS", 0.0)
    monkeypatch.setattr("whereby_trigger.decide.pending.LOOK_EVERY", 0.0)
    program = Program()
    async with Stage(program.trigger, tmp_path) as stage:
        for number in range(100):
            await stage.deliver(joined(f"a{number}", 2, f"/visit-{number}"))
        await eventually(lambda: len(stage.running.holds) == 100)
        await stage.running.hold_watch.look()
        read: list[frozenset[str]] = []
        presences = stage.store.presences

        def counting(keys: frozenset[str]) -> object:
            read.append(keys)
            return presences(keys)

        monkeypatch.setattr(stage.running.hold_watch, "_store", _Counting(stage.store, counting))
        for _ in range(5):
            stage.running.holds.other_replicas_wrote()
            await stage.running.hold_watch.look()
        assert read == []


class _Counting:
    """Wrap a store and count the reads of presences."""

    def __init__(self, store: Store, presences: object) -> None:
        self.newest, self.ask_again, self.presences = store.newest, store.ask_again, presences


# What a hold survives


async def test_after_a_restart_it_fires_when_it_is_due(tmp_path: Path) -> None:
    program, join = Program(hold=1.0), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        (before,) = await stage.records()
    async with Stage(program.trigger, tmp_path) as stage:
        await eventually(lambda: len(stage.running.holds) == 1)
        (record,) = await stage.records()
        assert (record.state, record.due_at) == (State.HELD, before.due_at)
        fired = await outcome(stage, join)
        assert record.due_at is not None
        assert time.time() >= record.due_at
    assert fired.state is State.FIRED
    assert program.told == ["joined a", "success a"]


async def hold_in_the_past(folder: Path, sent: Webhook, ago: float, hold: float) -> None:
    """Store a webhook whose hold began `ago` seconds ago, on a replica that is gone."""
    settings = settings_for(folder)
    store = SqliteStore(settings.store, wall=lambda: time.time() - ago)
    await store.open(lambda: None)
    added = await store.add(verdict_on(sent, settings, time.time() - ago).arrival)
    assert await store.hold(Holding(added.seq, sent.id, "held", hold))
    await store.close()


async def test_what_was_due_while_nobody_ran_fires_at_once(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    await hold_in_the_past(tmp_path, join, ago=HOLD + 5, hold=HOLD)
    async with Stage(program.trigger, tmp_path) as stage:
        fired = await outcome(stage, join)
    assert (fired.state, fired.reason) == (State.FIRED, "predicate two_people returned True for 30 s")
    assert program.told == ["success a"]


async def test_what_was_due_while_nobody_ran_is_skipped_if_it_is_no_longer_true(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    program.alone = True
    await hold_in_the_past(tmp_path, join, ago=HOLD + 5, hold=HOLD)
    async with Stage(program.trigger, tmp_path) as stage:
        skipped = await outcome(stage, join)
    assert skipped.state is State.SKIPPED
    said, _, after = skipped.reason.partition(", no longer true after ")
    assert said == "predicate two_people returned False"
    assert HOLD + 5 <= float(after.removesuffix(" s")) < HOLD + 60


async def test_max_age_counts_from_the_time_at_which_it_is_due(tmp_path: Path) -> None:
    program, join = Program(hold=500), joined("a", 2)
    async with Stage(program.trigger, tmp_path, max_age=60, drain_timeout=1) as stage:
        await held_on(stage, join)
        stage.jump(500)
        assert (await outcome(stage, join)).state is State.FIRED


async def test_what_has_been_due_for_longer_than_max_age_is_skipped(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    await hold_in_the_past(tmp_path, join, ago=HOLD + 61, hold=HOLD)
    async with Stage(program.trigger, tmp_path, max_age=60, drain_timeout=1) as stage:
        skipped = await outcome(stage, join)
    assert (skipped.state, skipped.reason) == (State.SKIPPED, "due longer than max_age (60 s) ago")
    assert program.asked == []


async def test_a_drain_does_not_wait_for_it_and_gives_it_back(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        assert stage.running.awaited == ""
        assert stage.running.dispatcher.idle
        await asyncio.wait_for(stage.running.drain(600, asyncio.Event()), 20)
        (before,) = await stage.records()
    later = SqliteStore(stage.settings.store)
    await later.open_readonly()
    (record,) = await later.find(Query())
    await later.close()
    assert (record.state, record.owner, record.due_at) == (State.PENDING, None, before.due_at)


async def test_one_that_drains_lets_another_hold_it_until_it_is_due(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as other:
        async with Stage(program.trigger, tmp_path) as stage:
            await held_on(stage, join)
        await eventually(lambda: len(other.running.holds) == 1 and not other.running.dispatcher.behind)
        other.jump(HOLD)
        assert (await outcome(other, join)).state is State.FIRED
    assert program.told == ["joined a", "success a"]


async def test_a_replica_that_lost_its_lease_holds_nothing_and_finds_it_again(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        await stage.running.dispatcher.cancel()
        assert len(stage.running.holds) == 0
        await stage.store.rejoin(30)
        await eventually(lambda: len(stage.running.holds) == 1 and not stage.running.dispatcher.behind)
        assert program.asked == ["a", "a"]
        stage.jump(HOLD)
        assert (await outcome(stage, join)).state is State.FIRED
    assert program.told == ["joined a", "success a"]


async def test_what_came_out_of_the_store_begins_its_hold_when_it_is_asked_about(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    await leave_pending(tmp_path, join, received_at=time.time() - 100)
    async with Stage(program.trigger, tmp_path) as stage:
        assert (await outcome(stage, join)).state is State.HELD
        (record,) = await stage.records()
        assert record.due_at == pytest.approx(time.time() + HOLD, abs=10)


# What people do


async def test_a_replay_of_a_held_one_asks_at_once_and_begins_its_hold_again(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        stage.jump(20)
        assert await stage.store.replay(Query(ids=("a",)), time.time()) == ["a"]
        stage.running.dispatcher.find(-1)
        assert (await outcome(stage, join)).state is State.HELD
        stage.jump(HOLD - 10)
        await stage.running.hold_watch.look()
        assert await state_of(stage.store, "a") is State.HELD
        stage.jump(10)
        assert (await outcome(stage, join)).state is State.FIRED


async def test_a_duplicate_of_a_held_one_changes_nothing(tmp_path: Path) -> None:
    program, join = Program(), joined("a", 2)
    async with Stage(program.trigger, tmp_path) as stage:
        await held_on(stage, join)
        added = await stage.deliver(join)
        assert (added.duplicate, added.state) == (True, State.HELD)
        await stage.running.hold_watch.look()
        assert program.asked == ["a"]
        stage.jump(HOLD)
        assert (await outcome(stage, join)).state is State.FIRED
    assert program.told == ["joined a", "success a"]


# In a user's test


async def test_two_that_hold_at_once_in_a_room_give_one_assistant() -> None:
    trigger = Program(SOON).trigger
    trigger.assistant(_stay)
    async with trigger.testing() as t:
        first, second = joined("a", 2), joined("b", 3)
        assert [(await t.deliver(sent)).state for sent in (first, second)] == ["held", "held"]
        reasons = [(await t.decided(sent)).reason for sent in (first, second)]
        assert [(await t.decided(sent)).state for sent in (first, second)] == ["fired", "fired"]
        assert [start.trigger_webhook.id for start in t.assistants] in (["a"], ["b"])
    assert all("returned True for 0.05 s" in reason for reason in reasons)


async def test_a_stop_of_the_rooms_assistant_leaves_a_hold_alone() -> None:
    trigger = Program(SOON).trigger
    trigger.assistant(_stay)
    async with trigger.testing() as t:
        held = joined("a", 2)
        assert (await t.deliver(held)).state == "held"
        await trigger.stop_assistant("https://acme.whereby.com/visit-1")
        assert (await t.decided(held)).state == "fired"
        assert len(t.assistants) == 1


async def test_a_duplicate_in_a_test_gives_what_became_of_the_first() -> None:
    trigger = Program(SOON).trigger
    async with trigger.testing() as t:
        sent = joined("a", 2)
        assert (await t.deliver(sent)).state == "held"
        await t.decided(sent)
        assert (await t.deliver(sent)).state == "fired"


async def _stay(session: object) -> None:
    await asyncio.Event().wait()


# How it is registered


@pytest.mark.parametrize("hold", [0, -1, math.nan, math.inf, True, "30", timedelta(seconds=30), 1e9])
def test_a_hold_that_is_no_number_of_seconds_is_refused(hold: object) -> None:
    with pytest.raises(RegistrationError, match="hold is for how many seconds"):
        Trigger().when("room.client.joined", hold=hold)(lambda: True)  # type: ignore[call-overload]
    with pytest.raises(RegistrationError, match="hold is for how many seconds"):
        Trigger(webhook_triggers={"room.client.joined": Hold(lambda: True, hold)})  # type: ignore[arg-type]


def test_a_hold_in_a_dict_is_the_hold_of_the_decorator() -> None:
    def stays(webhook: RoomClientJoined) -> bool:
        return True

    by_dict = Trigger(webhook_triggers={"room.client.joined": Hold(stays, 30)})
    by_decorator = Trigger()
    assert by_decorator.when("room.client.joined", hold=30)(stays) is stays
    kept = [trigger.predicates.by_type.get("room.client.joined") for trigger in (by_dict, by_decorator)]
    assert kept[0] == kept[1]
    assert kept[0] is not None
    assert kept[0].hold == 30


def test_a_hold_applies_to_each_type_it_is_registered_for() -> None:
    trigger = Trigger()
    trigger.when("room.client.joined", "room.client.left", hold=5)(lambda: True)
    assert [predicate.hold for predicate in trigger.predicates.by_type.values()] == [5, 5]
