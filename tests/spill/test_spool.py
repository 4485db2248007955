"""The spool's file: in order, synced, for one process at a time, and refused in words where it cannot be used."""

import asyncio
import os
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.arrivals import arrival
from tests.support.process import Process
from tests.support.replica import ROOT
from whereby_trigger.errors import ConfigError, SpillInUse, StoreError, StoreUnavailable
from whereby_trigger.store.spill import Spool, look_into
from whereby_trigger.store.spill.opening import Content

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spill.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
async def spool(url: str) -> AsyncIterator[Spool]:
    spool = Spool(url)
    await spool.open()
    yield spool
    await spool.close()


async def fill(spool: Spool, *ids: str) -> None:
    await asyncio.gather(*(spool.append(arrival(id)) for id in ids))


async def heads(spool: Spool) -> list[str]:
    return [one.arrival.id for one in await spool.head() if one.arrival is not None]


async def test_what_is_added_comes_out_in_order_until_it_is_removed(spool: Spool) -> None:
    await fill(spool, "a", "b", "c")
    first, *_ = await spool.head()
    assert await heads(spool) == ["a", "b", "c"]
    await spool.remove([first.seq])
    await fill(spool, "d")
    assert await heads(spool) == ["b", "c", "d"]
    assert spool.length == 3


async def test_reading_gives_what_was_handed_over_before_it(spool: Spool) -> None:
    adding = [spool.append(arrival(f"{n}")) for n in range(100)]
    assert spool.length == 100
    assert await heads(spool) == [f"{n}" for n in range(100)]
    assert all(one.done() for one in adding)


async def test_reading_is_bounded_in_number_and_in_bytes_but_for_one(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(spool.append(arrival(f"{n}", body=b"x" * 1000)) for n in range(10)))
    monkeypatch.setattr("whereby_trigger.store.spill.spool.BATCH", 4)
    assert await heads(spool) == ["0", "1", "2", "3"]
    monkeypatch.setattr("whereby_trigger.store.spill.spool.BATCH_BYTES", 2500)
    assert await heads(spool) == ["0", "1"]
    monkeypatch.setattr("whereby_trigger.store.spill.spool.BATCH_BYTES", 1)
    assert await heads(spool) == ["0"]


async def test_what_is_in_the_file_is_there_when_it_is_opened_again(spool: Spool, url: str) -> None:
    await fill(spool, "a", "b")
    await spool.close()
    again = Spool(url)
    await again.open()
    assert again.length == 2
    assert await heads(again) == ["a", "b"]
    await again.close()


async def test_a_file_in_use_is_refused_with_what_to_do_and_free_after_that(spool: Spool, url: str) -> None:
    with pytest.raises(SpillInUse, match=r"spill\.db is in use by another replica.*: name another file with spill="):
        await Spool(url).open()
    await spool.close()
    other = Spool(url)
    await other.open()
    await other.close()


HOLD = """
import asyncio, sys
from whereby_trigger.store.spill import Spool

async def hold():
    await Spool(sys.argv[1]).open()
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""


async def test_a_file_that_a_killed_process_had_is_free(url: str) -> None:
    with Process([sys.executable, "-c", HOLD, url], cwd=ROOT) as other:
        other.line("held")
        with pytest.raises(SpillInUse):
            await Spool(url).open()
        other.kill()
        spool = Spool(url)
        await spool.open()
        await spool.close()


async def test_its_files_are_their_owners_only(spool: Spool, path: Path) -> None:
    await fill(spool, "a")
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert files == dict.fromkeys(("spill.db", "spill.db-lock", "spill.db-shm", "spill.db-wal"), 0o600)


async def test_what_was_refused_waits_aside_until_the_file_is_opened_again(spool: Spool, url: str, path: Path) -> None:
    await fill(spool, "a", "b")
    first, *_ = await spool.head()
    await spool.set_aside(first.seq, "the database refuses it")
    assert await heads(spool) == ["b"]
    assert spool.length == 1
    assert look_into(path) == Content(waiting=1, refused=1)
    await spool.close()
    again = Spool(url)
    await again.open()
    assert await heads(again) == ["a", "b"]
    assert again.length == 2
    await again.close()


async def test_space_is_given_back_when_an_empty_file_is_opened(spool: Spool, url: str, path: Path) -> None:
    await asyncio.gather(*(spool.append(arrival(f"{n}", body=os.urandom(10_000))) for n in range(200)))
    while rows := await spool.head():
        await spool.remove([row.seq for row in rows])
    await spool.close()
    assert path.stat().st_size > 1_000_000
    again = Spool(url)
    await again.open()
    await again.close()
    assert path.stat().st_size < 50_000


async def test_a_ping_writes(spool: Spool, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        (before,) = other.execute("PRAGMA data_version").fetchone()
        await spool.ping()
        (after,) = other.execute("PRAGMA data_version").fetchone()
    assert after != before


async def test_what_cannot_be_written_out_is_refused_and_leaves_the_rest(spool: Spool) -> None:
    lone = spool.append(arrival("\ud800"))
    await fill(spool, "a")
    with pytest.raises(StoreError, match="the spill refused a value"):
        await lone
    assert await heads(spool) == ["a"]
    assert spool.length == 1


async def test_a_spool_that_was_never_opened_takes_nothing(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="the spill is not open"):
        await Spool(url).append(arrival("a"))
    await Spool(url).close()


async def test_looking_into_it_counts_beside_who_has_it_and_creates_nothing(spool: Spool, path: Path) -> None:
    await fill(spool, "a", "b")
    assert look_into(path) == Content(waiting=2, refused=0)
    with pytest.raises(StoreError, match=r"there is no spill at .*/none"):
        look_into(path.with_name("none"))
    assert not path.with_name("none").exists()
    empty = path.with_name("empty")
    empty.touch()
    assert look_into(empty) == Content(0, 0)


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
        await Spool(url).open()
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_or_in_no_folder_is_refused_in_words(path: Path, url: str) -> None:
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"the spill .* is damaged or is no SQLite file"):
        await Spool(url).open()
    with pytest.raises(StoreError, match=r"the spill's folder .* does not exist: create it, or set spill= to another"):
        await Spool(f"sqlite:///{path.parent}/none/spill.db").open()
    with pytest.raises(ConfigError, match=r"spill 'sqlite:///:memory:' names no file"):
        Spool("sqlite:///:memory:")


async def test_a_full_disk_refuses_gives_out_what_it_has_and_recovers_unaided(url: str) -> None:
    with Process([sys.executable, "-m", "tests.spill.filling", url], cwd=ROOT) as process:
        assert process.wait() == 0, process.output
        taken, refused, reason, full, after, left = process.output.splitlines()[-6:]
    assert int(taken) > 10
    assert int(refused) > 10
    assert reason.startswith("the spill takes no writes now: ")
    assert (int(full), int(after), int(left)) == (int(taken), 1, 0)


async def test_a_file_that_is_deleted_while_in_use_takes_nothing_more_and_still_gives_out_what_it_has(
    spool: Spool, path: Path
) -> None:
    await spool.append(arrival("before"))
    path.unlink()
    for refused in (spool.append(arrival("after")), spool.ping()):
        with pytest.raises(StoreUnavailable, match=r"the spill takes no writes now: .* was deleted or moved"):
            await refused
    (before,) = await spool.head()
    await spool.remove([before.seq])
    assert spool.length == 0
