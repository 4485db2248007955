"""What a test costs, and the file that stays open from one to the next: each begins with an empty store."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from tests.support.until import eventually
from whereby_trigger import Session, Trigger, is_human
from whereby_trigger.clock import boot_clock
from whereby_trigger.errors import StoreError
from whereby_trigger.testing import TestingTrigger
from whereby_trigger.testing.store import StoreFile, TestStore, store_file

THREADS = 1
"""The thread of sync predicates and listeners. Everything else in a test happens on its event loop."""

TRANSACTIONS = 10
"""To empty and join, to look after what is old, for two deliveries and decisions and a claim, one advance, to leave."""

TURNS = 60
"""Of the event loop, from its start to its end."""


SEQUENCE = re.compile(r"""(INSERT INTO|DELETE FROM) "sqlite_sequence"( VALUES\('\w+',0\))?;""")


class CountingLoop(asyncio.SelectorEventLoop):
    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


async def visit(trigger: Trigger, number: int = 1) -> None:
    async with trigger.testing() as t:
        meeting = t.meeting(f"/visit-{number}")
        assert (await meeting.join("assistant")).state == "skipped"
        assert (await meeting.join("host")).state == "fired"
        await t.advance(60)
        assert [start.room_url for start in t.assistants] == [f"https://acme.whereby.com/visit-{number}"]


@pytest.fixture
def trigger() -> Trigger:
    trigger = Trigger(webhook_triggers={"room.client.joined": is_human})

    @trigger.assistant
    async def scribe(session: Session) -> None:
        await session.ended

    return trigger


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Yield the statements that the block runs."""
    said: list[str] = []
    with store_file() as file:
        connection = file.database.connection
    connection.set_trace_callback(said.append)
    yield said
    connection.set_trace_callback(None)


def test_a_test_costs_one_thread_few_transactions_and_few_turns_of_its_loop(
    trigger: Trigger, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(visit(trigger))
    started: list[str] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    statements.clear()
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(visit(trigger))
        loop = runner.get_loop()
    assert isinstance(loop, CountingLoop)
    assert loop.turns <= TURNS
    assert [name for name in started if name.startswith("whereby-trigger")] == ["whereby-trigger-user-code"] * THREADS
    assert 0 < sum(said == "COMMIT" for said in statements) <= TRANSACTIONS
    assert not [said for said in statements if said.startswith("CREATE")]


def dump(file: StoreFile) -> list[str]:
    # A table that has never had a row may have a number, 0, or none.
    return [line for line in file.database.connection.iterdump() if not SEQUENCE.fullmatch(line)]


def test_a_block_begins_with_nothing_of_the_one_before(trigger: Trigger) -> None:
    fresh = StoreFile()
    with store_file() as used:
        pass
    asyncio.run(visit(trigger))
    try:
        used.empty(lambda connection: None)
        assert dump(used) == dump(fresh)
    finally:
        fresh.close()


def test_two_blocks_at_once_have_a_store_each(trigger: Trigger) -> None:
    async def two() -> None:
        async with trigger.testing() as t, Trigger().testing() as other:
            await t.meeting().join("host")
            assert await other.stored() == []
            await other.meeting().join("visitor")
            assert [len(await each.stored()) for each in (t, other)] == [1, 1]

    asyncio.run(two())


async def cancelled_while_it_leaves(trigger: Trigger) -> TestingTrigger:
    """Leave a block as anyio's cancel scopes do, which cancel each wait of the way out."""
    with anyio.CancelScope() as scope:
        async with trigger.testing() as t:
            await t.meeting().join("host")
            scope.cancel()
            await anyio.sleep_forever()
    return t


def test_a_block_that_was_cancelled_while_it_was_left_has_no_part_in_the_next(trigger: Trigger) -> None:
    async def two() -> None:
        before = asyncio.all_tasks()
        left = await cancelled_while_it_leaves(trigger)
        async with Trigger().testing() as t:
            await t.meeting().join("host")
            with pytest.raises(StoreError, match="not open"):
                await left.stored()
        await eventually(lambda: asyncio.all_tasks() == before)

    asyncio.run(two())


def test_what_a_locked_file_kept_from_being_written_is_not_written_in_the_next_block() -> None:
    async def write() -> None:
        with store_file() as file:
            store = TestStore(file, 30.0, boot_clock, time.time)
            await store.open()
            file.database.connection.execute("PRAGMA busy_timeout = 0")
            other = sqlite3.connect(file.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            writing = store.rejoin(30.0)
            task = asyncio.ensure_future(writing)
            await asyncio.sleep(0)
            store.let_go()
            other.close()
            with pytest.raises(StoreError):
                await task
            assert file.database.connection.execute("SELECT count(*) FROM replicas").fetchone() == (1,)
            file.database.connection.execute("PRAGMA busy_timeout = 5000")

    asyncio.run(write())


def remove(file: Path) -> None:
    for beside in file.parent.iterdir():
        beside.unlink()


@pytest.mark.parametrize(
    "harm", [remove, Path.unlink, lambda file: os.truncate(file, 100)], ids=["all removed", "removed", "cut short"]
)
def test_a_file_that_was_removed_or_cut_short_between_two_blocks_is_replaced(
    trigger: Trigger, harm: Callable[[Path], None]
) -> None:
    with store_file() as file:
        harmed = file.path
    harm(harmed)
    asyncio.run(visit(trigger))
    with store_file() as file:
        assert file.path != harmed


def test_the_folder_for_temporary_files_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", ".")
    file = StoreFile()
    monkeypatch.chdir("/")
    assert file.usable
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_which_a_transaction_was_left_open_is_not_used_again() -> None:
    with store_file() as file:
        file.database.connection.execute("BEGIN IMMEDIATE")
        left = file.path
    assert not left.exists()
    with store_file() as file:
        assert file.path != left


def test_a_file_that_cannot_be_emptied_is_a_store_error_and_is_not_used_again() -> None:
    def fails(connection: object) -> None:
        raise OSError(28, "No space left on device")

    with store_file() as file:
        broken = file.path
        with pytest.raises(StoreError, match="No space left"):
            file.empty(fails)
    assert not broken.exists()


USES = """
import asyncio, os, sys
from whereby_trigger import Trigger
from whereby_trigger.testing import webhook

trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})

async def visit():
    async with trigger.testing() as t:
        assert (await t.deliver(webhook("room.client.joined"))).state == "fired"
"""
FORKS = """
asyncio.run(visit())
if os.fork() == 0:
    asyncio.run(visit())
    sys.exit(0)
assert os.wait()[1] == 0
asyncio.run(visit())
"""

PROCESSES = """
import multiprocessing

def child():
    asyncio.run(visit())

if __name__ == "__main__":
    for method in multiprocessing.get_all_start_methods():
        process = multiprocessing.get_context(method).Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
"""


@pytest.mark.parametrize(
    "program",
    ["asyncio.run(visit())", FORKS, PROCESSES],
    ids=["one process", "a process and its child", "multiprocessing"],
)
def test_nothing_is_left_when_the_process_has_ended(program: str, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(USES + program)
    # Python warns of any fork beside a thread, of which some may be ending.
    warnings = ["-W", "error::ResourceWarning", "-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *warnings, str(file)]
    # The path of a socket in it must not be long.
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ) | {"TMPDIR": folder}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert os.listdir(folder) == []
