"""The spool's file: in order, synced, for one process at a time, and refused with a reason if it is unusable."""

import asyncio
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.arrivals import arrival
from tests.support.process import Process
from tests.support.replica import ROOT
from tests.support.until import eventually
from whereby_trigger.errors import ConfigError, SpillInUse, StoreError, StoreUnavailable
from whereby_trigger.store import spill_file as spill_file_module
from whereby_trigger.store.spill_file import SpillContent, SpillFile, read_content
from whereby_trigger.store.sqlite.writer import NoBatchSummary

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spill.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
async def spill_file(url: str) -> AsyncIterator[SpillFile]:
    spill_file = SpillFile(url)
    await spill_file.open()
    yield spill_file
    await spill_file.close()


async def fill(spill_file: SpillFile, *ids: str) -> None:
    await asyncio.gather(*(spill_file.append(arrival(id)) for id in ids))


async def heads(spill_file: SpillFile) -> list[str]:
    return [one.arrival.id for one in await spill_file.head() if one.arrival is not None]


async def test_what_is_added_comes_out_in_order_until_it_is_removed(spill_file: SpillFile) -> None:
    await fill(spill_file, "a", "b", "c")
    first, *_ = await spill_file.head()
    assert await heads(spill_file) == ["a", "b", "c"]
    await spill_file.remove([first.seq])
    await fill(spill_file, "d")
    assert await heads(spill_file) == ["b", "c", "d"]
    assert spill_file.length == 3


async def test_a_spill_whose_opening_is_cancelled_is_free_for_the_next_that_opens_it(url: str) -> None:
    starting = asyncio.create_task(SpillFile(url).open())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    await eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "whereby-trigger-call"])
    again = SpillFile(url)
    await again.open()
    await again.close()


async def test_reading_gives_what_was_handed_over_before_it(spill_file: SpillFile) -> None:
    adding = [spill_file.append(arrival(f"{n}")) for n in range(100)]
    assert spill_file.length == 100
    assert await heads(spill_file) == [f"{n}" for n in range(100)]
    assert all(one.done() for one in adding)


async def test_reading_is_bounded_in_number_and_in_bytes_but_for_one(
    spill_file: SpillFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(spill_file.append(arrival(f"{n}", body=b"x" * 1000)) for n in range(10)))
    monkeypatch.setattr("whereby_trigger.store.spill_file.BATCH", 4)
    assert await heads(spill_file) == ["0", "1", "2", "3"]
    monkeypatch.setattr("whereby_trigger.store.spill_file.BATCH_BYTES", 2500)
    assert await heads(spill_file) == ["0", "1"]
    monkeypatch.setattr("whereby_trigger.store.spill_file.BATCH_BYTES", 1)
    assert await heads(spill_file) == ["0"]


async def test_what_is_in_the_file_is_there_when_it_is_opened_again(spill_file: SpillFile, url: str) -> None:
    await fill(spill_file, "a", "b")
    await spill_file.close()
    again = SpillFile(url)
    await again.open()
    assert again.length == 2
    assert await heads(again) == ["a", "b"]
    await again.close()


async def test_a_file_in_use_is_refused_with_what_to_do_and_free_after_that(spill_file: SpillFile, url: str) -> None:
    with pytest.raises(SpillInUse, match=r"spill\.db is in use by another replica.*: name another file with spill="):
        await SpillFile(url).open()
    await spill_file.close()
    other = SpillFile(url)
    await other.open()
    await other.close()


HOLD = """
import asyncio, sys
from whereby_trigger.store.spill_file import SpillFile

async def hold():
    await SpillFile(sys.argv[1]).open()
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""


async def test_a_file_that_a_killed_process_had_is_free(url: str) -> None:
    with Process([sys.executable, "-c", HOLD, url], cwd=ROOT) as other:
        other.line("held")
        with pytest.raises(SpillInUse):
            await SpillFile(url).open()
        other.kill()
        spill_file = SpillFile(url)
        await spill_file.open()
        await spill_file.close()


async def test_its_files_are_their_owners_only(spill_file: SpillFile, path: Path) -> None:
    await fill(spill_file, "a")
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert files == dict.fromkeys(("spill.db", "spill.db-lock", "spill.db-shm", "spill.db-wal"), 0o600)


async def test_what_was_refused_waits_aside_until_the_file_is_opened_again(
    spill_file: SpillFile, url: str, path: Path
) -> None:
    await fill(spill_file, "a", "b")
    first, *_ = await spill_file.head()
    await spill_file.set_aside(first.seq, "the database refuses it")
    assert await heads(spill_file) == ["b"]
    assert spill_file.length == 1
    assert read_content(path) == SpillContent(waiting=1, refused=1)
    await spill_file.close()
    again = SpillFile(url)
    await again.open()
    assert await heads(again) == ["a", "b"]
    assert again.length == 2
    await again.close()


async def test_space_is_given_back_when_an_empty_file_is_opened(spill_file: SpillFile, url: str, path: Path) -> None:
    await asyncio.gather(*(spill_file.append(arrival(f"{n}", body=os.urandom(10_000))) for n in range(200)))
    while rows := await spill_file.head():
        await spill_file.remove([row.seq for row in rows])
    await spill_file.close()
    assert path.stat().st_size > 1_000_000
    again = SpillFile(url)
    await again.open()
    await again.close()
    assert path.stat().st_size < 50_000


async def test_a_ping_writes(spill_file: SpillFile, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        (before,) = other.execute("PRAGMA data_version").fetchone()
        await spill_file.ping()
        (after,) = other.execute("PRAGMA data_version").fetchone()
    assert after != before


async def test_what_cannot_be_written_out_is_refused_and_leaves_the_rest(spill_file: SpillFile) -> None:
    lone = spill_file.append(arrival("\ud800"))
    await fill(spill_file, "a")
    with pytest.raises(StoreError, match="the spill refused a value"):
        await lone
    assert await heads(spill_file) == ["a"]
    assert spill_file.length == 1


async def test_a_spool_that_was_never_opened_takes_nothing(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="the spill is not open"):
        await SpillFile(url).append(arrival("a"))
    await SpillFile(url).close()


async def test_looking_into_it_counts_beside_who_has_it_and_creates_nothing(spill_file: SpillFile, path: Path) -> None:
    await fill(spill_file, "a", "b")
    assert read_content(path) == SpillContent(waiting=2, refused=0)
    with pytest.raises(StoreError, match=r"there is no spill at .*/none"):
        read_content(path.with_name("none"))
    assert not path.with_name("none").exists()
    empty = path.with_name("empty")
    empty.touch()
    assert read_content(empty) == SpillContent(0, 0)


@pytest.mark.parametrize(
    ("made_by", "says"),
    [
        ("CREATE TABLE webhooks (id TEXT)", "is a database of another kind: name another file with spill="),
        ("PRAGMA application_id = 7; CREATE TABLE t (a)", "is a database of another kind"),
        (
            f"PRAGMA application_id = {0x77745350}; PRAGMA user_version = 2; CREATE TABLE t (a)",
            "was written by a newer whereby-trigger",
        ),
    ],
)
async def test_a_file_of_something_else_is_refused_and_left_as_it_was(
    path: Path, url: str, made_by: str, says: str
) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.executescript(made_by)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=says):
        await SpillFile(url).open()
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_or_in_no_folder_is_refused_in_words(path: Path, url: str) -> None:
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"the spill .* is damaged or is no SQLite file"):
        await SpillFile(url).open()
    with pytest.raises(StoreError, match=r"the spill's folder .* does not exist: create it, or set spill= to another"):
        await SpillFile(f"sqlite:///{path.parent}/none/spill.db").open()
    with pytest.raises(ConfigError, match=r"spill 'sqlite:///:memory:' names no file"):
        SpillFile("sqlite:///:memory:")


async def test_a_full_disk_refuses_gives_out_what_it_has_and_recovers_unaided(url: str) -> None:
    with Process([sys.executable, "-m", "tests.spill.filling", url], cwd=ROOT) as process:
        assert process.wait() == 0, process.output
        taken, refused, reason, full, after, left = process.output.splitlines()[-6:]
    assert int(taken) > 10
    assert int(refused) > 10
    assert reason.startswith("the spill takes no writes now: ")
    assert (int(full), int(after), int(left)) == (int(taken), 1, 0)


async def test_a_file_that_is_deleted_while_in_use_takes_nothing_more_and_still_gives_out_what_it_has(
    spill_file: SpillFile, path: Path
) -> None:
    await spill_file.append(arrival("before"))
    path.unlink()
    for refused in (spill_file.append(arrival("after")), spill_file.ping()):
        with pytest.raises(StoreUnavailable, match=r"the spill takes no writes now: .* was deleted or moved"):
            await refused
    (before,) = await spill_file.head()
    await spill_file.remove([before.seq])
    assert spill_file.length == 0
    with pytest.raises(StoreError, match="No such file"):
        await spill_file.wipe()


class FullDisk(NoBatchSummary):
    """Fail each transaction that changed anything, as a full disk does, and count the steps that SQLite took."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._before = connection.total_changes
        self.steps = 0
        connection.set_progress_handler(self._count, 1)

    def _count(self) -> int:
        self.steps += 1
        return 0

    def write(self, connection: sqlite3.Connection) -> None:
        changed, self._before = connection.total_changes > self._before, connection.total_changes
        if changed:
            raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize("refused", [False, True], ids=["moved", "refused"])
async def test_to_empty_a_full_disk_takes_no_more_for_each_delivery_if_there_are_more(
    url: str, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """Each move read, and tried to delete, all that were moved before it: hours for the million of one outage."""
    monkeypatch.setattr(spill_file_module, "BATCH", 5)
    steps = [await steps_to_empty(f"{url}{count}", count, refused=refused) for count in (50, 200)]
    assert steps[1] < 5 * steps[0]


async def test_deliveries_after_a_journal_that_was_cut_short_are_moved_in_order_too(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are lost with it, and given out again."""
    monkeypatch.setattr(spill_file_module, "BATCH", 5)
    spill_file = SpillFile(url)
    await spill_file.open()
    await fill(spill_file, *(f"{number}" for number in range(10)))
    await spill_file.remove([row.seq for row in await spill_file.head()])
    assert [row.seq for row in await spill_file.head()] == [6, 7, 8, 9, 10]

    def cut(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM deliveries")
        connection.execute("UPDATE sqlite_sequence SET seq = 3")

    await spill_file._opened.submit(cut)
    await fill(spill_file, "a", "b", "c", "d")
    assert [row.seq for row in await spill_file.head()] == [4, 5, 6, 7]
    await spill_file.close()


async def cut_journal(spill_file: SpillFile) -> None:
    """Lose all that is in the file, and its numbers, as if somebody had cut its journal short."""

    def cut(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM deliveries")
        connection.execute("DELETE FROM sqlite_sequence")

    await spill_file._opened.submit(cut)


async def test_a_delivery_that_gets_the_number_of_one_that_is_being_moved_stays(spill_file: SpillFile) -> None:
    await fill(spill_file, "a", "b")
    moving = [row.seq for row in await spill_file.head()]
    await cut_journal(spill_file)
    await fill(spill_file, "c", "d")
    await spill_file.remove(moving)
    assert await heads(spill_file) == ["c", "d"]


async def test_a_delivery_that_gets_the_number_of_one_that_is_refused_is_moved_all_the_same(
    spill_file: SpillFile,
) -> None:
    await fill(spill_file, "a")
    (refused,) = await spill_file.head()
    await cut_journal(spill_file)
    await fill(spill_file, "b")
    await spill_file.set_aside(refused.seq, "the database refuses it")
    assert await heads(spill_file) == ["b"]


async def test_a_delivery_that_gets_the_number_of_one_that_a_full_disk_has_kept_is_moved_and_then_removed(
    spill_file: SpillFile,
) -> None:
    await fill(spill_file, "a", "b")
    writer = spill_file._opened
    writer._summary = FullDisk(writer._database.connection)
    await spill_file.remove([row.seq for row in await spill_file.head()])
    writer._summary = NoBatchSummary()
    await cut_journal(spill_file)
    await fill(spill_file, "c", "d")
    first, second = await spill_file.head()
    assert first.arrival is not None
    assert first.arrival.id == "c"
    await spill_file.remove([first.seq])
    assert await heads(spill_file) == ["d"]
    await spill_file.remove([second.seq])
    assert await heads(spill_file) == []


async def steps_to_empty(url: str, count: int, *, refused: bool) -> int:
    spill_file = SpillFile(url)
    await spill_file.open()
    await fill(spill_file, *(f"{number}" for number in range(count)))
    writer = spill_file._opened
    disk = FullDisk(writer._database.connection)
    if not refused:
        writer._summary = disk
    emptied = 0
    while rows := await spill_file.head():
        emptied += len(rows)
        if refused:
            for row in rows:
                await spill_file.set_aside(row.seq, "the database refuses it")
        else:
            await spill_file.remove([row.seq for row in rows])
    assert (emptied, spill_file.length) == (count, 0)
    taken, writer._summary = disk.steps, NoBatchSummary()
    await spill_file.close()
    assert read_content(spill_file.path) == SpillContent(0, count if refused else 0)
    return taken
