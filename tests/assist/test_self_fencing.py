"""The lease on a real store, with a short time: renewed, endangered, lost, and regained under a new id."""

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from unittest.mock import Mock

import pytest

from tests.support.clock import JumpingClock
from tests.support.late import LateAnswer
from tests.support.rooms import ask, newest
from tests.support.supervised import Assistants, Function
from tests.support.until import eventually
from whereby_trigger import clock, fence, process
from whereby_trigger.assist import CoroutineAssistant, Session, Supervisor, launch_nothing, launcher
from whereby_trigger.clock import boot_time
from whereby_trigger.decide import Dispatcher
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.fence import Fence
from whereby_trigger.process import USUALLY_WITHIN, Watchdog
from whereby_trigger.store import RoomState, Store, Unread
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.store.sqlite.lock import FileLock

pytestmark = pytest.mark.anyio

TTL = 1.5
LIVE, WAITING = RoomState.LIVE, RoomState.WAITING


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rooms.db"


@pytest.fixture
def assistants() -> Assistants:
    return Assistants()


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Keep the store from every replica: hold the lock that its writers take."""
    lock = FileLock(path.with_name(path.name + "-lock"))
    lock.acquire(5)
    try:
        yield
    finally:
        lock.close()


class Noted(Watchdog):
    """Record the deadlines, and how far ahead they were, instead of ending the tests."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead: list[float] = []
        self.within: list[float] = []

    def set(
        self, name: str, deadline: float, applies: Callable[[], bool] = lambda: True, within: float = USUALLY_WITHIN
    ) -> None:
        self.ahead.append(deadline - boot_time())
        self.within.append(within)


class Queue(Dispatcher):
    """Count how often the queue was dropped."""

    def __init__(self) -> None:
        self.dropped = 0

    async def cancel(self) -> None:
        self.dropped += 1


class LookedAt(Unread):
    """Record whether the lease was held at each look at the store."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self.held: list[bool] = []

    def look(self) -> None:
        self.held.append(self._store.lease.held)


class Replica:
    """Keep a lease and serve rooms for an `async with` block."""

    def __init__(
        self,
        path: Path,
        function: Function | None,
        clock: JumpingClock | None = None,
        ttl: float = TTL,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.store = SqliteStore(f"sqlite:///{path}", ttl, clock or JumpingClock())
        self.watchdog = Noted()
        assistant = CoroutineAssistant(function)  # type: ignore[arg-type]
        launch = launcher(assistant, grace=60, deadline=lambda: self.store.lease.deadline)
        self.supervisor = Supervisor(self.store, launch, 10 if function else 0)
        self.queue, self.unread = Queue(), LookedAt(self.store)
        self.fence = Fence(self.store, self.supervisor, self.queue, self.unread, watchdog or self.watchdog)

    async def __aenter__(self) -> "Replica":
        await self.store.open(self.supervisor.wake)
        self.fence.begin()
        loops = [self.fence.keep(), self.supervisor.supervise()]
        self._loops = [asyncio.create_task(loop) for loop in loops]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.supervisor.cut_off("the test is over")
        for loop in self._loops:
            loop.cancel()
        await asyncio.wait(self._loops)
        await self.store.close()

    async def serve(self) -> None:
        """Request an assistant for the room and wait until it is live."""
        await ask(self.store)
        self.supervisor.wake()
        await eventually(self.is_live)

    async def is_live(self) -> bool:
        return (await newest(self.store)).state is LIVE


async def test_a_lease_is_renewed_for_as_long_as_the_store_is_there(path: Path, assistants: Assistants) -> None:
    async with Replica(path, assistants.stay) as replica, Replica(path, None) as other:
        await replica.serve()
        first = replica.store.lease.deadline
        while replica.store.lease.deadline < first + 1.5 * TTL:
            assert replica.store.lease.held
            assert await other.store.take_over() == 0
            await eventually(lambda at=replica.store.lease.deadline: replica.store.lease.deadline > at)  # type: ignore[misc]
        assert assistants.started == [("visit-1", 1)]
        assert replica.queue.dropped == 0


class Unanswered(SqliteStore):
    """A store that keeps renewals of a lease waiting."""

    def __init__(self, url: str) -> None:
        super().__init__(url, 0.3)
        self.answers: list[asyncio.Future[bool]] = []

    def renew(self, ttl: float) -> "asyncio.Future[bool]":
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


async def test_a_renewal_that_fails_when_the_lease_is_lost_already_is_nothing_for_asyncio_to_complain_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, queue = Unanswered(f"sqlite:///{path}"), Queue()
    await store.open(lambda: None)
    fence = Fence(store, Supervisor(store, launch_nothing, 0), queue, Unread(), Noted())
    keeping = asyncio.create_task(fence.keep())
    await eventually(lambda: store.answers and queue.dropped)
    await eventually(lambda: len(store.answers) > 1)
    keeping.cancel()
    await asyncio.wait({keeping})
    for answer in store.answers:
        answer.set_exception(StoreUnavailable("the store is away"))
    store.answers.clear()
    del answer
    await store.close()
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_the_deadline_counts_from_when_the_renewal_was_sent_and_leaves_a_margin(path: Path) -> None:
    async with Replica(path, None) as replica:
        replica.store.lease.begin(1000.0)
        assert 1000 + TTL * 0.9 < replica.store.lease.deadline < 1000 + TTL


async def test_while_the_store_is_away_assistants_leave_before_the_deadline_and_come_back_with_it(
    path: Path, assistants: Assistants
) -> None:
    async with Replica(path, assistants.stay) as replica:
        await replica.serve()
        with away(path):
            await eventually(lambda: not assistants.there)
            assert boot_time() < replica.store.lease.deadline, "it left after the deadline"
        assert "lease" in assistants.sessions["visit-1"].ended.reason
        await eventually(lambda: assistants.there)
        room = await newest(replica.store)
        assert room.restarts == 0
        assert [attempt for _, attempt in assistants.started] == [1, 2]


async def test_an_assistant_that_does_not_leave_is_cancelled_before_the_deadline(path: Path) -> None:
    cancelled: list[float] = []

    async def stays(session: Session) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(boot_time())

    async with Replica(path, stays) as replica:
        await replica.serve()
        with away(path):
            await eventually(lambda: cancelled)
        assert cancelled[0] < replica.store.lease.deadline
        await eventually(replica.is_live)
        assert (await newest(replica.store)).restarts == 0


async def test_a_lease_that_ran_out_is_had_again_under_a_new_id_with_the_queue_dropped(
    path: Path, assistants: Assistants
) -> None:
    async with Replica(path, assistants.stay) as replica:
        await replica.serve()
        old, lease = replica.store.replica, replica.store.lease
        with away(path):
            await eventually(lambda: replica.store.replica != old)
            assert not lease.held
            assert assistants.there == []
            assert replica.queue.dropped == 1
        await eventually(lambda: replica.unread.held)
        await replica.store.take_over()
        await eventually(lambda: assistants.there)
        room = await newest(replica.store)
        assert (room.owner, room.attempt, room.restarts) == (replica.store.replica, 2, 0)


async def test_a_room_taken_under_a_lost_lease_gets_an_assistant_only_once_it_is_taken_again(
    path: Path, assistants: Assistants
) -> None:
    async with Replica(path, assistants.stay) as replica:
        old = replica.store.replica
        taking = replica.store.take = LateAnswer(replica.store.take)  # type: ignore[method-assign, assignment]
        await ask(replica.store)
        replica.supervisor.wake()
        await taking.answered.wait()
        with away(path):
            await eventually(lambda: replica.store.replica != old)
        await eventually(lambda: replica.store.lease.held)
        taking.go.set()
        await eventually(lambda: not replica.supervisor.starting)
        await replica.store.take_over()
        await eventually(lambda: assistants.there)
    assert assistants.started == [("visit-1", 2)]


async def test_a_new_id_whose_lease_has_run_out_meanwhile_is_not_used(path: Path, assistants: Assistants) -> None:
    async with Replica(path, assistants.stay) as replica:
        await replica.serve()
        old, lease = replica.store.replica, replica.store.lease
        with away(path):
            await eventually(lambda: replica.store.replica != old)
            since = boot_time()
            await eventually(lambda: boot_time() > since + TTL)
        await eventually(lambda: lease.held)
        assert replica.unread.held == [True]
        assert min(replica.watchdog.ahead) > 0
        assert max(replica.watchdog.within) <= replica.store.lease.margin


async def test_a_replica_whose_lease_another_took_for_dead_starts_anew(path: Path, assistants: Assistants) -> None:
    ahead = JumpingClock()
    async with Replica(path, assistants.stay) as replica:
        await replica.serve()
        old = replica.store.replica
        ahead.jump(TTL + 1)
        other = SqliteStore(f"sqlite:///{path}", TTL, ahead)
        await other.open(lambda: None)
        assert await other.take_over() == 1
        (taken,) = await other.take(1)
        await eventually(lambda: replica.store.replica != old)
        await eventually(lambda: not assistants.there)
        assert (await newest(other)).owner == taken.owner == other.replica
        assert replica.queue.dropped == 1
        await other.close()


async def test_a_replica_with_a_long_lease_has_a_new_one_soon_after_its_machine_slept_for_longer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0
    monkeypatch.setattr(clock, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(clock.MACHINE, "boot", lambda: boot_time() + slept)
    for module in (clock, fence):
        monkeypatch.setattr(module, "boot_time", lambda: boot_time() + slept)
    async with Replica(path, None, ttl=3600) as replica:
        old = replica.store.replica
        await asyncio.sleep(0)  # it waits for its next renewal now
        slept = 4000.0
        await eventually(lambda: replica.store.replica != old)
        await eventually(lambda: replica.store.lease.held)


async def test_a_machine_that_slept_past_the_lease_ends_its_assistants_and_not_its_process(
    path: Path, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept, ended, watchdog = 0.0, list[str](), Watchdog()
    monkeypatch.setattr(clock.MACHINE, "boot", lambda: boot_time() + slept)
    for module in (clock, fence, process):
        monkeypatch.setattr(module, "boot_time", lambda: boot_time() + slept)
    monkeypatch.setattr(process, "_end_at_once", ended.append)
    async with Replica(path, assistants.stay, ttl=30, watchdog=watchdog) as replica:
        await replica.serve()
        old = replica.store.replica
        slept = 4000.0
        await eventually(lambda: replica.store.replica != old)
        await eventually(lambda: replica.store.lease.held)
    watchdog.close()
    assert ended == []


async def test_a_store_whose_folder_cannot_be_entered_ends_assistants_before_the_lease_is_over(
    tmp_path: Path, assistants: Assistants
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    async with Replica(folder / "rooms.db", assistants.stay) as replica:
        await replica.serve()
        away = folder.rename(tmp_path / "away")
        folder.touch()
        await eventually(lambda: not assistants.there)
        assert replica.store.lease.held
        folder.unlink()
        away.rename(folder)
        await eventually(replica.is_live)


async def test_a_renewal_that_fails_for_any_reason_ends_assistants_before_the_lease_is_over(
    path: Path, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Replica(path, assistants.stay) as replica:
        await replica.serve()
        monkeypatch.setattr(replica.store, "renew", Mock(side_effect=MemoryError))
        await eventually(lambda: not assistants.there)
        assert replica.store.lease.held
        monkeypatch.undo()
        await eventually(replica.is_live)


async def test_a_log_handler_that_fails_keeps_no_assistant_until_its_lease_is_over(
    tmp_path: Path, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, fail, loop = logging.Handler(), Mock(side_effect=RuntimeError), asyncio.get_running_loop()
    monkeypatch.setattr(handler, "emit", fail)
    folder = tmp_path / "store"
    folder.mkdir()
    async with Replica(folder / "rooms.db", assistants.stay) as replica:
        await replica.serve()
        monkeypatch.setattr(fence.logger, "handlers", [handler])
        tests_own = loop.get_exception_handler()
        loop.set_exception_handler(lambda loop, context: None)
        away = folder.rename(tmp_path / "away")
        await eventually(lambda: not assistants.there)
        assert replica.store.lease.held
        assert fail.called
        away.rename(folder)
        monkeypatch.undo()
        loop.set_exception_handler(tests_own)


async def test_a_replica_that_cannot_rejoin_tries_again(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    async with Replica(folder / "rooms.db", None) as replica:
        old = replica.store.replica
        away = folder.rename(tmp_path / "away")
        replica.store.lease.deadline = 0.0
        await eventually(lambda: replica.queue.dropped >= 2)
        assert replica.store.replica == old
        away.rename(folder)
        await eventually(lambda: replica.store.lease.held)
        assert replica.store.replica != old


async def test_a_replica_without_an_assistant_keeps_its_lease_and_drops_its_queue_too(path: Path) -> None:
    async with Replica(path, None) as replica:
        old = replica.store.replica
        with away(path):
            await eventually(lambda: replica.store.replica != old)
        await eventually(lambda: replica.store.lease.held)
        assert replica.queue.dropped == 1
        assert replica.watchdog.ahead == []
