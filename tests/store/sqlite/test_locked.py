"""A file that another program holds locked: reported at the start, waited for while running."""

import asyncio
import fcntl
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.arrivals import NOW, arrival, decision, record
from tests.support.until import eventually
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Query, State, Store
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.store.sqlite.connection import BUSY_TIMEOUT

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running(impatient: float, url: str) -> AsyncIterator[Store]:
    store = SqliteStore(url)
    await store.open(lambda: None)
    yield store
    await store.close()


@pytest.fixture
def other(running: Store, path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


def test_a_lock_is_waited_for_as_long_as_the_docs_say() -> None:
    assert BUSY_TIMEOUT == 5


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
async def test_a_lock_that_stays_is_told_of_at_the_start(
    impatient: float, url: str, running: Store, other: sqlite3.Connection, mode: str
) -> None:
    other.execute(f"BEGIN {mode}")
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="locked by another program") as caught:
        await SqliteStore(url).open(lambda: None)
    assert "close what has it open" in str(caught.value)
    assert impatient <= time.monotonic() - started < impatient + 1


async def test_a_program_that_keeps_even_readers_out_is_told_of(impatient: float, url: str, path: Path) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    await store.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    for opening in (SqliteStore(url).open(lambda: None), SqliteStore(url).open_readonly()):
        with pytest.raises(StoreUnavailable, match="locked by another program"):
            await opening
    other.close()


async def test_a_process_of_ours_that_hangs_in_its_turn_is_told_of(impatient: float, url: str, path: Path) -> None:
    with path.with_name(path.name + "-lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="locked by another program"):
            await SqliteStore(url).open(lambda: None)


async def test_while_locked_writes_are_refused_reads_go_on_and_afterwards_all_is_well(
    running: Store, other: sqlite3.Connection
) -> None:
    await running.add(arrival("before"))
    other.execute("BEGIN IMMEDIATE")
    for write in (running.add(arrival("during")), running.ping(NOW), running.take_over()):
        with pytest.raises(StoreUnavailable, match="takes no writes now"):
            await write
    assert [found.id for found in await running.find(Query())] == ["before"]
    assert len(await running.pending(0, 10)) == 1
    other.execute("ROLLBACK")
    assert not (await running.add(arrival("during"))).duplicate
    await running.ping(NOW)


async def test_a_decision_waits_for_the_lock_to_go_however_long_it_stays(
    running: Store, other: sqlite3.Connection
) -> None:
    one, two = await running.add(arrival("a")), await running.add(arrival("b"))
    other.execute("BEGIN IMMEDIATE")
    deciding = [running.decide(decision(one.seq, "a")), running.decide(decision(two.seq, "b", State.SKIPPED))]
    running.append_error("a", "later")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await running.ping(NOW)
    assert not any(asyncio.ensure_future(one_of_them).done() for one_of_them in deciding)
    other.execute("ROLLBACK")
    assert await asyncio.gather(*deciding) == [True, True]
    await eventually(lambda: _errors(running, "a"))
    assert (await record(running, "b")).state is State.SKIPPED


async def test_a_store_that_is_locked_when_it_closes_closes_all_the_same(
    url: str, impatient: float, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    added = await store.add(arrival("a"))
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    deciding = store.decide(decision(added.seq, "a"))
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await deciding
    other.execute("ROLLBACK")
    other.close()
    assert caplog.records == []
    heir = SqliteStore(url)
    await heir.open(lambda: None)
    assert await heir.take_over() == 1
    await heir.close()


async def _errors(store: Store, id: str) -> tuple[str, ...]:
    return (await record(store, id)).errors
