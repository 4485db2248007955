"""Webhooks that do not fit in memory wait in the store, in their room's order, and missed ones are found again."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Container
from pathlib import Path

import pytest

from tests.support.arrivals import arrival
from tests.support.late import LateAnswer
from tests.support.stage import Stage, leave_pending, settings_for
from tests.support.stages import backlog_for, decider_for, dispatcher_for
from tests.support.until import eventually
from whereby_trigger import RoomClientJoined, Trigger, Webhook
from whereby_trigger.decide import Decider, PendingWebhook
from whereby_trigger.decide import dispatcher as dispatcher_module
from whereby_trigger.decide.dispatcher import PAGE, PAGE_BYTES, page_for
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Decision, Query, State, Unread
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import room_of

pytestmark = pytest.mark.anyio

ROOMS = 5


def joined(number: int) -> Webhook:
    return webhook("room.client.joined", id=f"{number:04}", room=f"/visit-{number % ROOMS}")


class Asked:
    """Record which webhooks a predicate was asked about, in order."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.go = asyncio.Event()

    def trigger(self, *, asynchronous: bool = True) -> Trigger:
        predicate = self.note_async if asynchronous else self.note
        return Trigger(webhook_triggers={"room.client.joined": predicate})

    def note(self, webhook: RoomClientJoined) -> bool:
        self.ids.append(webhook.id)
        return True

    async def note_async(self, webhook: RoomClientJoined) -> bool:
        await self.go.wait()
        return self.note(webhook)

    def in_order_of_arrival(self, total: int) -> bool:
        """Return True if each was asked about once, and each room's in order of arrival."""
        rooms = [[id for id in self.ids if int(id) % ROOMS == room] for room in range(ROOMS)]
        return sorted(self.ids) == [f"{n:04}" for n in range(total)] and all(room == sorted(room) for room in rooms)


@pytest.fixture(params=["webhooks", "bytes"])
def small_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "webhooks":
        monkeypatch.setattr("whereby_trigger.decide.dispatcher.MAX_QUEUED", 10)
    else:
        monkeypatch.setattr("whereby_trigger.decide.dispatcher.MAX_BYTES", 10 * len(joined(0).raw) - 1)
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.PAGE", 7)
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.MAKE_ROOM", 0.001)


def test_a_page_of_the_largest_bodies_fits_in_memory() -> None:
    assert page_for(256 * 1024) == PAGE
    assert page_for(64 * 1024 * 1024) * 64 * 1024 * 1024 <= PAGE_BYTES


async def test_webhooks_that_were_left_are_read_a_few_at_a_time_if_bodies_may_be_large(tmp_path: Path) -> None:
    asked = Asked()
    asked.go.set()
    await leave_pending(tmp_path, *(joined(number) for number in range(5)))
    async with Stage(asked.trigger(), tmp_path, max_body=64 * 1024 * 1024) as stage:
        await eventually(lambda: all_decided(stage))
    assert asked.in_order_of_arrival(5)


async def all_decided(stage: Stage) -> bool:
    return all(record.state is State.FIRED for record in await stage.records())


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
async def test_more_than_memory_holds_is_decided_once_each_and_in_order(asynchronous: bool, tmp_path: Path) -> None:
    asked = Asked()
    total = 300
    async with Stage(asked.trigger(asynchronous=asynchronous), tmp_path) as stage:
        for number in range(0, total, 20):
            await asyncio.gather(*(stage.deliver(joined(n)) for n in range(number, number + 20)))
            asked.go.set()
        await eventually(lambda: all_decided(stage))
        await eventually(lambda: len(stage.decided) == total)
    assert asked.in_order_of_arrival(total)


@pytest.mark.usefixtures("small_memory")
async def test_a_backlog_larger_than_memory_and_what_arrives_meanwhile_are_decided_once_each_and_in_order(
    tmp_path: Path,
) -> None:
    await leave_pending(tmp_path, *(joined(number) for number in range(100)))
    asked = Asked()
    asked.go.set()
    async with Stage(asked.trigger(), tmp_path) as stage:
        for number in range(100, 200):
            await stage.deliver(joined(number))
        await eventually(lambda: all_decided(stage))
    assert asked.in_order_of_arrival(200)


@pytest.mark.usefixtures("small_memory")
async def test_memory_holds_no_more_than_its_bound_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 3600.0)
    asked = Asked()
    async with Stage(asked.trigger(), tmp_path) as stage:
        asked.go.set()
        await stage.deliver(joined(0))
        await stage.decision(joined(0))
        asked.go.clear()
        added = [await stage.deliver(joined(number)) for number in range(1, 50)]
        queued = [one.seq for one in added if stage.running.dispatcher.knows(one.seq)]
        assert queued == [one.seq for one in added[:10]]
        asked.go.set()
        await eventually(lambda: all_decided(stage))
    assert asked.in_order_of_arrival(50)


async def test_a_webhook_whose_commit_answer_was_lost_is_found_by_the_reread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 0.0)
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 0.01)
    asked = Asked()
    asked.go.set()
    async with Stage(asked.trigger(), tmp_path) as stage:
        await stage.store_only(joined(0))
        assert (await stage.decision(joined(0))).state is State.FIRED
    assert asked.ids == ["0000"]


async def test_a_webhook_whose_decision_finds_no_memory_to_be_committed_is_decided_by_the_reread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 0.0)
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 0.01)
    asked = Asked()
    asked.go.set()
    async with Stage(asked.trigger(), tmp_path) as stage:
        decide = stage.store.decide

        def find_no_memory(decision: Decision) -> "asyncio.Future[bool]":
            stage.store.decide = decide  # type: ignore[method-assign]
            raise MemoryError

        stage.store.decide = find_no_memory  # type: ignore[method-assign]
        await stage.deliver(joined(0))
        assert (await stage.decision(joined(0))).state is State.FIRED


@pytest.mark.parametrize("call", ["take_over", "pending"])
async def test_what_a_call_that_failed_has_left_to_be_read_is_read_soon(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 3600.0)
    asked = Asked()
    asked.go.set()
    async with Stage(asked.trigger(), tmp_path) as stage:
        await eventually(lambda: not stage.running.dispatcher.behind)
        works, failed = getattr(stage.store, call), asyncio.Event()

        async def fail_once(*arguments: object) -> None:
            setattr(stage.store, call, works)
            failed.set()
            raise StoreUnavailable("the answer was lost")

        added = await stage.store_only(joined(0))
        setattr(stage.store, call, fail_once)
        if call == "pending":
            stage.running.dispatcher.find(added.seq)
        await failed.wait()
        assert (await asyncio.wait_for(stage.decision(joined(0)), 60)).state is State.FIRED


async def test_a_duplicate_of_a_pending_webhook_that_nobody_queued_queues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 3600.0)
    asked = Asked()
    asked.go.set()
    async with Stage(asked.trigger(), tmp_path) as stage:
        await stage.deliver(joined(0))
        await stage.decision(joined(0))
        await stage.store_only(joined(1))
        await stage.deliver(joined(2))
        await stage.decision(joined(2))
        assert asked.ids == ["0000", "0002"]
        assert (await stage.deliver(joined(1))).duplicate
        assert (await stage.decision(joined(1))).state is State.FIRED
    assert asked.ids == ["0000", "0002", "0001"]


@pytest.mark.parametrize("when", ["while it is being decided", "after it was decided", "after another reading"])
async def test_what_is_read_back_before_its_commit_is_answered_is_decided_once(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 3600.0)
    asked = Asked()
    async with Stage(asked.trigger(), tmp_path) as stage:
        await eventually(lambda: not stage.running.dispatcher.behind)
        added = await stage.store_only(joined(0))
        await stage.deliver(joined(0))
        await eventually(lambda: stage.running.dispatcher.knows(added.seq))
        if when != "while it is being decided":
            asked.go.set()
            await stage.decision(joined(0))
        if when == "after another reading":
            await read_again(stage)
        stage.hand_on(joined(0), added)
        asked.go.set()
        await stage.running.drain(10, asyncio.Event())
    assert asked.ids == ["0000"]


async def test_what_is_read_back_and_held_before_its_commit_is_answered_is_heard_of_once(tmp_path: Path) -> None:
    heard: list[str] = []
    trigger = Trigger()
    trigger.when("room.client.joined", hold=60)(lambda: True)
    trigger.on("room.client.joined", lambda webhook: heard.append(webhook.id))
    async with Stage(trigger, tmp_path) as stage:
        await eventually(lambda: not stage.running.dispatcher.behind)
        added = await stage.store_only(joined(0))
        stage.running.dispatcher.find(added.seq)
        assert (await stage.decision(joined(0))).state is State.HELD
        stage.hand_on(joined(0), added)
        stage.forget(joined(0))
        stage.jump(61)
        assert (await stage.decision(joined(0))).state is State.FIRED
    assert heard == ["0000"]


async def test_what_is_read_back_before_it_is_known_to_be_asked_again_fires_once(tmp_path: Path) -> None:
    heard: list[str] = []
    trigger = Trigger()
    trigger.when("room.client.joined", hold=0.01)(lambda: True)
    trigger.on("trigger_event_success", lambda success: heard.append(success.trigger_webhook.id))
    async with Stage(trigger, tmp_path) as stage:
        asking = stage.store.ask_again = LateAnswer(stage.store.ask_again)  # type: ignore[method-assign, assignment]
        added = await stage.deliver(joined(0))
        assert (await stage.decision(joined(0))).state is State.HELD
        stage.forget(joined(0))
        await eventually(asking.answered.is_set)
        stage.running.dispatcher.find(added.seq)
        assert (await stage.decision(joined(0))).state is State.FIRED
        await read_again(stage)
        asking.go.set()
        await eventually(lambda: len(stage.running.holds) == 0)
        await stage.running.drain(10, asyncio.Event())
    assert heard == ["0000"]


async def read_again(stage: Stage) -> None:
    """Ask for another read of the backlog, and wait until it is done."""
    dispatcher, again = stage.running.dispatcher, asyncio.Event()
    end_reading = dispatcher.end_reading

    def ended(*, complete: bool) -> bool:
        again.set()
        return end_reading(complete=complete)

    dispatcher.end_reading = ended  # type: ignore[method-assign]
    dispatcher.find(0)
    await again.wait()


async def test_what_arrives_while_the_backlog_is_read_makes_it_be_read_again(tmp_path: Path) -> None:
    trigger = Trigger()
    async with Stage(trigger, tmp_path) as stage:
        decider = decider_for(stage.store, trigger.predicates, trigger.emitter, stage.user_code, 60)
        dispatcher = dispatcher_for(stage.store, decider, Unread())
        dispatcher.begin_reading()
        now = time.time()
        queued = PendingWebhook(1, stage.store.replica, joined(0), None, now, now, time.monotonic())
        dispatcher.submit(queued)
        assert not dispatcher.end_reading(complete=True)
        assert not dispatcher.knows(1)
        dispatcher.begin_reading()
        assert dispatcher.end_reading(complete=True)


async def test_to_forget_what_was_read_back_takes_less_time_than_to_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the square of their number: 75,000, as after an outage, held up the event loop for 2 s."""
    monkeypatch.setattr(dispatcher_module, "MAX_QUEUED", 40_000)
    trigger, go = Trigger(), asyncio.Event()
    async with Stage(trigger, tmp_path) as stage:
        dispatcher = dispatcher_for(stage.store, SlowToCancel(asyncio.Event(), go), Unread())
        dispatcher.begin_reading()
        owner, one, room = stage.store.replica, joined(0), room_of(joined(0), None)
        began = time.thread_time()
        assert all(dispatcher.resubmit(PendingWebhook(seq, owner, one, room, 0, 0, 0)) for seq in range(40_000))
        read = time.thread_time() - began
        monkeypatch.setattr(dispatcher_module, "ANSWERED_WITHIN", 0.0)
        began = time.thread_time()
        dispatcher.begin_reading()
        forgotten = time.thread_time() - began
        go.set()
        await dispatcher.cancel()
    assert forgotten < read


class SlowToCancel(Decider):
    """Take a while to be cancelled, as user code may."""

    def __init__(self, cancelled: asyncio.Event, go: asyncio.Event) -> None:
        self.cancelled, self.go = cancelled, go

    async def decide(self, queued: PendingWebhook) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
            await self.go.wait()

    def forget_losses(self, pending: Container[int]) -> None:
        pass


async def test_what_is_read_back_while_all_is_cancelled_is_no_error(tmp_path: Path) -> None:
    trigger, cancelled, go, failed = Trigger(), asyncio.Event(), asyncio.Event(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    async with Stage(trigger, tmp_path) as stage:
        dispatcher = dispatcher_for(stage.store, SlowToCancel(cancelled, go), Unread())
        dispatcher.begin_reading()
        dispatcher.end_reading(complete=True)
        queued = [
            PendingWebhook(number, stage.store.replica, joined(number), room_of(joined(number), None), 0, 0, 0)
            for number in (1, 2)
        ]
        dispatcher.submit(queued[0])
        dispatcher.begin_reading()
        await asyncio.sleep(0)
        cancelling = asyncio.create_task(dispatcher.cancel())
        await cancelled.wait()
        assert dispatcher.resubmit(queued[1])
        late = next(task for task in asyncio.all_tasks() if "_decide_in_order" in repr(task) and not task.cancelling())
        go.set()
        await cancelling
        late.cancel()
        await asyncio.wait({late})
        assert not dispatcher.knows(1)
        del late
        gc.collect()
    assert failed == []


async def test_whoever_cancels_the_task_of_a_room_loses_none_of_its_webhooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 0.0)
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 0.01)
    asked = Asked()
    async with Stage(asked.trigger(), tmp_path) as stage:
        for number in range(0, 5 * ROOMS, ROOMS):
            await stage.deliver(joined(number))
        await eventually(lambda: not stage.running.dispatcher.idle)
        for task in asyncio.all_tasks():
            if "_decide_in_order" in repr(task.get_coro()):
                task.cancel()
        asked.go.set()
        await eventually(lambda: len(stage.decided) == 5)
    assert asked.ids == sorted(asked.ids)


async def test_rereading_all_the_time_decides_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 0.0)
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 0.0)
    asked = Asked()
    asked.go.set()
    async with Stage(asked.trigger(), tmp_path) as stage:
        for number in range(0, 400, 8):
            await asyncio.gather(*(stage.deliver(joined(n)) for n in range(number, number + 8)))
        await eventually(lambda: len(stage.decided) >= 400)
    assert Counter(asked.ids) == {f"{number:04}": 1 for number in range(400)}


async def test_what_this_program_cannot_decode_any_more_is_quarantined_and_the_rest_decided(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    store = SqliteStore(settings.store)
    await store.open(lambda: None)
    await leave_pending(tmp_path, joined(0))
    await store.add(arrival("odd", body=b"of another time"))
    await store.close()
    await leave_pending(tmp_path, joined(1))
    asked = Asked()
    asked.go.set()
    async with Stage(asked.trigger(), tmp_path) as stage:
        await stage.decision(joined(1))
        states = {record.id: record.state for record in await stage.records()}
    assert states == {"0000": State.FIRED, "odd": State.QUARANTINED, "0001": State.FIRED}


async def test_neither_pruning_nor_replaying_touches_a_pending_webhook(tmp_path: Path) -> None:
    asked = Asked()
    async with Stage(asked.trigger(), tmp_path) as stage:
        await stage.deliver(joined(0), received_at=time.time() - 3600)
        other = SqliteStore(stage.settings.store)
        await other.open(lambda: None)
        assert await other.prune(time.time() + 3600) == 0
        assert await other.replay(Query(), time.time()) == []
        await other.close()
        asked.go.set()
        assert (await stage.decision(joined(0))).state is State.FIRED
    assert asked.ids == ["0000"]


async def test_two_triggers_that_share_a_file_and_are_idle_let_each_other_sleep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 0.3)
    asked = Asked()
    asked.go.set()
    looks = 0
    async with Stage(asked.trigger(), tmp_path) as one, Stage(asked.trigger(), tmp_path) as two:
        await one.deliver(joined(0))
        await two.deliver(joined(1))
        await asyncio.gather(one.decision(joined(0)), two.decision(joined(1)))
        claim = one.store.take_over

        def counted(max_age):  # type: ignore[no-untyped-def]
            nonlocal looks
            looks += 1
            return claim(max_age)

        one.store.take_over = counted  # type: ignore[assignment, method-assign]
        await eventually(lambda: looks >= 2)
        begin = time.monotonic()
        await eventually(lambda: looks >= 4)
        assert time.monotonic() - begin > 0.3


@pytest.mark.parametrize("steps", range(6))
async def test_a_look_that_is_asked_for_as_the_trigger_closes_does_not_keep_it_open(steps: int, tmp_path: Path) -> None:
    asked = Asked()
    async with Stage(asked.trigger(), tmp_path) as stage:
        unread = Unread()
        backlog = backlog_for(stage.store, stage.running.dispatcher, unread)
        looking = asyncio.create_task(backlog.run())
        await eventually(lambda: not stage.running.dispatcher.behind)
        unread.look()
        for _ in range(steps):
            await asyncio.sleep(0)
        looking.cancel()
        assert await asyncio.wait({looking}, timeout=10) == ({looking}, set())


async def test_what_is_stored_after_the_deciding_has_ended_is_left_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.TAKEOVER", 3600.0)
    asked = Asked()
    asked.go.set()
    async with Stage(asked.trigger(), tmp_path) as stage:
        await stage.deliver(joined(0))
        await stage.decision(joined(0))
        await stage.running.dispatcher.cancel()
        added = await stage.deliver(joined(1))
        assert not stage.running.dispatcher.knows(added.seq)
    assert asked.ids == ["0000"]
