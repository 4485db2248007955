"""The journal beside a file in use is removed, replaced or shared: what is acknowledged is in the file."""

import asyncio
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any
from unittest.mock import Mock

import pytest

from tests.support.arrivals import NOW, arrival, decision
from tests.support.replica import ROOT
from tests.support.until import eventually
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store import Query, Store
from whereby_trigger.store.sqlite import SqliteStore, journal, webhooks

pytestmark = pytest.mark.anyio

LOOK = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM webhooks').fetchall(); c.close()"
)

BEGIN_A_JOURNAL = """
import os, sqlite3, sys
for end in ("-wal", "-shm"):
    os.unlink(sys.argv[1] + end)
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA user_version = 1")
print(flush=True)
sys.stdin.read()
"""


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-shm")


def remove_log(path: Path) -> None:
    log_of(path).unlink()


def remove_index(path: Path) -> None:
    index_of(path).unlink()


def remove_both(path: Path) -> None:
    remove_log(path)
    remove_index(path)


def move_log(path: Path) -> None:
    log_of(path).rename(path.with_name("elsewhere"))


def empty_log(path: Path) -> None:
    remove_log(path)
    log_of(path).touch()


def older_log(path: Path) -> None:
    """Replace the log by a copy of it: a valid one, which lacks everything added later."""
    copy = path.with_name("copy")
    copy.write_bytes(log_of(path).read_bytes())
    copy.rename(log_of(path))


def garbage_log(path: Path) -> None:
    remove_log(path)
    log_of(path).write_bytes(os.urandom(100_000))


DAMAGES = [remove_log, remove_index, remove_both, move_log, empty_log, older_log, garbage_log]


def cut_to_nothing(path: Path) -> None:
    """As `> webhooks.db-wal` does, or a program that rotates logs."""
    os.truncate(log_of(path), 0)


def cut_to_its_header(path: Path) -> None:
    os.truncate(log_of(path), 32)


def cut_in_half(path: Path) -> None:
    os.truncate(log_of(path), log_of(path).stat().st_size // 2)


def cut_and_remove(path: Path) -> None:
    cut_to_nothing(path)
    remove_log(path)


def cut_without_index(path: Path) -> None:
    cut_to_nothing(path)
    remove_index(path)


CUTS = [cut_to_nothing, cut_to_its_header, cut_in_half, cut_and_remove, cut_without_index]


@pytest.fixture
async def running(unopened: Store) -> AsyncIterator[Store]:
    await unopened.open(lambda: None)
    yield unopened
    await unopened.close()


def in_the_file(path: Path) -> set[str]:
    """Read, as after a kill, the ids that are in the files at their paths."""
    copy = path.parent / "as after a kill"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for found in (path, log_of(path)):
        if found.exists():
            subprocess.run(["cp", found, copy], check=True)
    with closing(sqlite3.connect(copy / path.name)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {id for (id,) in connection.execute("SELECT id FROM webhooks")}


def look(path: Path) -> None:
    """Read the database in another process, as a person does with SQLite's shell."""
    subprocess.run([sys.executable, "-c", LOOK, path], check=True)


def run(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False)


def beside(*command: str | Path) -> "subprocess.Popen[str]":
    """Start another process, and wait for its first line."""
    other = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)
    assert other.stdout is not None
    other.stdout.readline()
    return other


async def taken(store: Store, *ids: str) -> set[str]:
    """Add webhooks concurrently; return those that were acknowledged."""
    outcomes = await asyncio.gather(*(store.add(arrival(id)) for id in ids), return_exceptions=True)
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes if isinstance(outcome, Exception))
    return {id for id, outcome in zip(ids, outcomes, strict=True) if not isinstance(outcome, BaseException)}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_is_acknowledged_after_the_journal_was_removed_is_in_the_file(
    running: Store, path: Path, damage: Callable[[Path], None]
) -> None:
    acknowledged = await taken(running, "a", "b")
    damage(path)
    for n in range(3):
        acknowledged |= await taken(running, f"after {n}")
    assert in_the_file(path) >= acknowledged >= {"a", "b", "after 2"}
    assert {record.id for record in await running.find(Query())} == in_the_file(path)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_an_idle_replica_has_acknowledged_comes_into_the_file_without_another_delivery(
    running: Store, path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    await running.add(arrival("a"))
    damage(path)
    await eventually(lambda: "all its content is saved" in caplog.text)
    assert in_the_file(path) == {"a"}


async def test_a_read_in_between_keeps_nobody_at_an_index_that_was_removed(
    running: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, loop = journal.Database._save, asyncio.get_running_loop()

    def save_beside_a_read(self: journal.Database, connection: sqlite3.Connection) -> str:
        reading = asyncio.run_coroutine_threadsafe(_ids(running), loop)
        # It is answered only after the mending, unless it comes in between.
        with suppress(TimeoutError):
            reading.result(0.2)
        return save(self, connection)

    monkeypatch.setattr(journal.Database, "_save", save_beside_a_read)
    await running.add(arrival("a"))
    remove_index(path)
    assert await taken(running, "b") == {"b"}
    assert await _ids(running) == in_the_file(path) == {"a", "b"}


async def _ids(store: Store) -> set[str]:
    return {record.id for record in await store.find(Query())}


@pytest.mark.parametrize("damage", [remove_log, remove_both, older_log])
async def test_replicas_that_share_a_file_lose_nothing_when_its_journal_is_removed(
    url: str, path: Path, damage: Callable[[Path], None]
) -> None:
    stores = [SqliteStore(url), SqliteStore(url)]
    for store in stores:
        await store.open(lambda: None)
    with beside("-m", "tests.support.replica", url, "other") as other:
        try:
            acknowledged = {"other"}
            for n in range(3):
                damage(path)
                await eventually(partial(_all_take, stores, n, acknowledged))
            assert in_the_file(path) >= acknowledged
        finally:
            # Otherwise a failure would wait for its end, which does not come.
            other.kill()
    for store in stores:
        await store.close()


async def _all_take(stores: list[SqliteStore], n: int, acknowledged: set[str]) -> bool:
    """Return True if each store accepts one more; add their ids to those acknowledged."""
    ids = [f"{n} of {store.replica}" for store in stores]
    took = [await taken(store, id) for store, id in zip(stores, ids, strict=True)]
    acknowledged.update(*took)
    return all(took)


async def test_a_log_removed_in_mid_commit_takes_no_acknowledged_webhook_along(
    running: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = webhooks.add

    def add_and_remove(*args: Any, **given: Any) -> Any:
        monkeypatch.setattr(webhooks, "add", add)
        added = add(*args, **given)
        remove_both(path)
        return added

    monkeypatch.setattr(webhooks, "add", add_and_remove)
    assert await taken(running, "a") <= in_the_file(path)
    assert await taken(running, "b") == {"b"}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.skipif(sys.platform != "linux", reason="the index is read as Linux shows it")
async def test_what_is_acknowledged_after_the_journal_was_cut_short_is_in_the_file(
    running: Store, path: Path, cut: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(20):
        await running.add(arrival(f"before {n}", body=b"x" * 20_000))
    cut(path)
    acknowledged = {id for n in range(3) for id in await taken(running, f"after {n}")}
    assert in_the_file(path) >= acknowledged >= {"after 2"}
    assert "what was only in it is lost" in caplog.text
    assert {record.id for record in await running.find(Query())} == in_the_file(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the index is read as Linux shows it")
async def test_a_log_cut_short_in_mid_commit_takes_no_acknowledged_webhook_along(
    running: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = webhooks.add

    def add_and_cut(*args: Any, **given: Any) -> Any:
        monkeypatch.setattr(webhooks, "add", add)
        added = add(*args, **given)
        cut_to_nothing(path)
        return added

    await taken(running, "before")
    monkeypatch.setattr(webhooks, "add", add_and_cut)
    assert await taken(running, "a") <= in_the_file(path)
    assert await taken(running, "b") == {"b"}
    assert "b" in in_the_file(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the index is read as Linux shows it")
async def test_replicas_whose_journal_was_cut_short_take_webhooks_again_and_keep_them(url: str, path: Path) -> None:
    stores = [SqliteStore(url), SqliteStore(url), SqliteStore(url)]
    for store in stores:
        await store.open(lambda: None)
        await store.add(arrival(f"before {store.replica}"))
    for n in range(3):
        cut_to_nothing(path)
        acknowledged: set[str] = set()
        await eventually(partial(_all_take, stores, n, acknowledged))
        assert in_the_file(path) >= acknowledged
    for store in stores:
        await store.close()


@pytest.mark.parametrize("left", [0, 4096, 20_000])
async def test_a_database_that_was_cut_short_takes_nothing_more(running: Store, path: Path, left: int) -> None:
    for n in range(30):
        await running.add(arrival(f"{n}", body=b"x" * 20_000))
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint")
    assert await taken(running, "before") == {"before"}
    os.truncate(path, left)
    for n in range(3):
        with pytest.raises(StoreUnavailable, match="was cut short while it was in use, and cannot be repaired"):
            await running.add(arrival(f"after {n}"))
    with pytest.raises(StoreUnavailable):
        await running.ping(NOW)


async def test_a_vacuum_by_another_program_is_no_damage(running: Store, path: Path) -> None:
    for n in range(30):
        await running.add(arrival(f"{n}", body=b"x" * 20_000))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert await taken(running, "a") == {"a"}
        other.execute("DELETE FROM webhooks WHERE id <> 'a'")
        other.execute("VACUUM")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert await taken(running, "b") == {"b"}
    assert in_the_file(path) == {"a", "b"}


async def test_a_decision_that_was_committed_as_the_log_vanished_is_told_as_made(running: Store, path: Path) -> None:
    added = await running.add(arrival("a"))
    remove_both(path)
    assert await running.decide(decision(added.seq, "a"))


async def test_where_another_program_began_a_new_journal_nothing_is_acknowledged_until_it_is_moved_away(
    running: Store, path: Path
) -> None:
    await running.add(arrival("a"))
    with beside("-c", BEGIN_A_JOURNAL, path) as other:
        outcome = await taken(running, "b")
        if not outcome:
            with pytest.raises(StoreUnavailable, match="another program has begun a new one: end every other"):
                await running.ping(NOW)
            other.kill()
            other.wait()
            log_of(path).rename(path.with_name("other-wal"))
            index_of(path).rename(path.with_name("other-shm"))
            outcome = await taken(running, "b")
        other.kill()
    assert outcome == {"b"}
    assert in_the_file(path) == {"a", "b"}


@pytest.mark.parametrize("names", [("",), ("", "-wal", "-shm")])
@pytest.mark.skipif(sys.platform != "linux", reason="locks of open file descriptions are Linux's")
async def test_copying_the_files_in_the_same_process_does_not_let_another_remove_the_journal(
    running: Store, path: Path, names: tuple[str, ...]
) -> None:
    await running.add(arrival("a"))
    for name in names:
        (path.with_name(path.name + name)).read_bytes()
    before = os.stat(log_of(path)), os.stat(index_of(path))
    look(path)
    assert all(map(os.path.samestat, before, (os.stat(log_of(path)), os.stat(index_of(path)))))
    await running.add(arrival("b"))
    assert in_the_file(path) == {"a", "b"}


async def test_a_second_store_of_the_process_takes_no_lock_along_when_it_closes(
    running: Store, url: str, path: Path
) -> None:
    second = SqliteStore(url)
    await second.open(lambda: None)
    await second.close()
    await running.add(arrival("a"))
    look(path)
    assert log_of(path).exists()


async def test_a_file_with_two_names_is_refused_under_both(url: str, path: Path) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    await store.close()
    os.link(path, path.with_name("other.db"))
    for name in (path.name, "other.db"):
        for open in (SqliteStore.open_readonly, SqliteStore.migrate, lambda store: store.open(lambda: None)):
            with pytest.raises(StoreError, match="has a second name, a hard link: each name has a journal of its own"):
                await open(SqliteStore(f"sqlite:///{path.with_name(name)}"))
    path.with_name("other.db").unlink()
    await store.open(lambda: None)
    await store.close()


async def test_a_file_that_is_given_a_second_name_takes_nothing_until_that_is_gone(running: Store, path: Path) -> None:
    os.link(path, path.with_name("other.db"))
    with pytest.raises(StoreUnavailable, match="has a second name, a hard link"):
        await running.add(arrival("a"))
    path.with_name("other.db").unlink()
    assert await taken(running, "b") == {"b"}


@pytest.mark.parametrize("name", ["webhooks.db", "web hooks.db"])
async def test_a_file_that_is_mounted_alone_is_refused(tmp_path: Path, name: str) -> None:
    """The mount is in a new mount namespace, as a container has."""
    (tmp_path / "real.db").touch()
    (tmp_path / name).touch()
    start = (
        "import asyncio, sys; from whereby_trigger.store.sqlite import SqliteStore; "
        "asyncio.run(SqliteStore('sqlite:///' + sys.argv[1]).open(lambda: None))"
    )
    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" "$2"'
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    ended = run(*words, tmp_path / "real.db", tmp_path / name, sys.executable, start)
    if "unshare:" in ended.stderr or "mount:" in ended.stderr:
        pytest.skip("unshare may not make a mount namespace here")
    assert "is mounted as a single file" in ended.stderr
    assert "mount the folder that it is in" in ended.stderr


async def test_a_journal_that_a_reader_keeps_from_being_emptied_is_told_of_once_each_time_it_doubles(
    running: Store, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(journal, "LARGE", 100_000)
    monkeypatch.setattr(running._writing.writer._database, "_told_size", 100_000)  # type: ignore[attr-defined]
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM webhooks").fetchone()
        for n in range(100):
            await running.add(arrival(f"{n}", body=b"x" * 20_000))
        await eventually(lambda: "keeps it from being emptied" in caplog.text)
        told = caplog.text.count("keeps it from being emptied")
        assert 1 <= told <= 6


async def test_an_emptied_journal_gives_its_space_back(
    unopened: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.store.sqlite.connection.JOURNAL_KEPT", 50_000)
    await unopened.open(lambda: None)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM webhooks").fetchone()
        await asyncio.gather(*(unopened.add(arrival(f"{n}", body=b"x" * 100_000)) for n in range(60)))
    assert log_of(path).stat().st_size > 5_000_000
    for n in range(3):
        await unopened.add(arrival(f"after {n}"))
    await eventually(lambda: log_of(path).stat().st_size < 100_000)
    await unopened.close()


async def test_a_log_handler_that_fails_to_tell_of_a_large_journal_holds_up_no_delivery(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, fail = logging.Handler(), Mock(side_effect=RuntimeError("the log's service is away"))
    monkeypatch.setattr(handler, "emit", fail)
    monkeypatch.setattr(journal.logger, "handlers", [handler])
    store = SqliteStore(f"sqlite:///{path}")
    await store.open(lambda: None)
    monkeypatch.setattr(journal, "LARGE", 1)
    monkeypatch.setattr(store._writing.writer._database, "_told_size", 1)  # type: ignore[union-attr]
    await eventually(lambda: fail.called)
    async with asyncio.timeout(10):
        assert not (await store.add(arrival("a"))).duplicate
    await store.close()
