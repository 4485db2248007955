"""Files that are not, or cannot be, a store: each refused with the reason and what to do, and left unchanged."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from tests.support.arrivals import arrival, decided
from tests.support.replica import replica_that_stores
from tests.support.unprivileged import outcomes
from tests.support.until import eventually
from whereby_trigger.errors import StoreError
from whereby_trigger.store import Query, State, Store
from whereby_trigger.store.sqlite import SqliteStore, opening
from whereby_trigger.store.sqlite.connection import connect, make_durable

pytestmark = pytest.mark.anyio


async def why_not(store: Store) -> str:
    """Fail to open a store and return the reason."""
    with pytest.raises(StoreError) as caught:
        await store.open(lambda: None)
    return str(caught.value)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def make(url: str) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    await decided(store, uuid4().hex)
    await store.close()


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    reason = await why_not(SqliteStore(f"sqlite:///{tmp_path}/missing/webhooks.db"))
    assert f"{tmp_path}/missing does not exist: create it" in reason
    assert list(tmp_path.iterdir()) == []


async def test_a_link_to_a_file_that_is_not_there_yet_makes_that_file(tmp_path: Path) -> None:
    link, target = tmp_path / "link.db", tmp_path / "target.db"
    link.symlink_to(target)
    await make(f"sqlite:///{link}")
    assert target.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()


async def test_a_folder_is_no_store(tmp_path: Path) -> None:
    assert "is a folder: name a file in it" in await why_not(SqliteStore(f"sqlite:///{tmp_path}"))


async def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "does not exist" in await why_not(SqliteStore(f"sqlite:///{tmp_path}/file/webhooks.db"))


@pytest.mark.parametrize("length", [230, 300])
async def test_a_name_too_long_for_the_file_system_is_an_error_in_words(tmp_path: Path, length: int) -> None:
    """At 230 characters the file itself can be created, but not the files beside it."""
    reason = await why_not(SqliteStore(f"sqlite:///{tmp_path}/{'x' * length}"))
    assert "too long" in reason


def garbage(path: Path) -> None:
    path.write_bytes(b"This is a shopping list: milk, bread, " * 500)


def overwritten(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as opened:
        opened.seek(100)
        opened.write(os.urandom(size - 100))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [garbage, overwritten, truncated])
async def test_a_damaged_file_is_refused_and_left_as_it_was(
    path: Path, url: str, damage: Callable[[Path], None]
) -> None:
    await make(url)
    damage(path)
    before = path.read_bytes()
    reason = await why_not(SqliteStore(url))
    assert "damaged or is no SQLite file" in reason
    assert "move it away" in reason
    assert path.read_bytes() == before


FOREIGN = {
    "one of another program": ("CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('milk')"),
    "one with a version table": ("CREATE TABLE version (number)",),
    "one with a version table like ours, but empty": ("CREATE TABLE version (schema, admits)",),
    "one with a version table of texts": (
        "CREATE TABLE version (schema, admits)",
        "INSERT INTO version VALUES ('two', 'one')",
    ),
}


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
async def test_another_programs_database_is_refused_and_left_as_it_was(
    path: Path, url: str, statements: tuple[str, ...]
) -> None:
    change(path, *statements)
    before = path.read_bytes()
    assert "belongs to another program: name another file" in await why_not(SqliteStore(url))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


async def test_a_store_that_admits_only_newer_programs_is_refused_and_left_as_it_was(path: Path, url: str) -> None:
    await make(url)
    change(path, f"UPDATE version SET schema = {opening.SCHEMA + 2}, admits = {opening.SCHEMA + 1}")
    before = path.read_bytes()
    reason = await why_not(SqliteStore(url))
    assert f"schema {opening.SCHEMA + 1}; this one knows {opening.SCHEMA}: upgrade whereby-trigger" in reason
    looking = SqliteStore(url)
    with pytest.raises(StoreError, match="upgrade whereby-trigger"):
        await looking.open_readonly()
    assert path.read_bytes() == before


async def test_a_newer_store_that_still_admits_this_program_works(path: Path, url: str) -> None:
    await make(url)
    change(path, f"UPDATE version SET schema = {opening.SCHEMA + 1}", "ALTER TABLE webhooks ADD COLUMN newer TEXT")
    store = SqliteStore(url)
    await store.open(lambda: None)
    await decided(store, "b")
    newest, oldest = await store.find(Query())
    assert (newest.id, newest.state, oldest.state) == ("b", State.FIRED, State.FIRED)
    await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT schema FROM version").fetchone() == (opening.SCHEMA + 1,)
    connection.close()


async def test_an_empty_file_becomes_a_store(path: Path, url: str) -> None:
    path.touch()
    await make(url)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """Create a folder that every user of this machine can reach, unlike those that pytest makes."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def shared_stores(folder: Path, *names: str) -> dict[str, Path]:
    """Create stores that every user of this machine can write, each in its own folder."""
    stores = {}
    for name in names:
        stores[name] = folder / name / "webhooks.db"
        stores[name].parent.mkdir()
        stores[name].parent.chmod(0o777)
        await make(f"sqlite:///{stores[name]}")
        for found in stores[name].parent.iterdir():
            found.chmod(0o666)
    return stores


async def test_file_modes_that_forbid_writing_are_told_of(shared_folder: Path) -> None:
    stores = await shared_stores(shared_folder, "open", "file", "folder", "empty", "unreachable", "lock")
    stores["empty"].unlink()
    modes = {
        stores["file"]: 0o444,
        stores["folder"].parent: 0o555,
        stores["empty"].parent: 0o555,
        stores["unreachable"].parent: 0,
        stores["lock"].with_name("webhooks.db-lock"): 0o444,
    }
    for path, mode in modes.items():
        path.chmod(mode)
    try:
        found = outcomes(*(f"sqlite:///{path}" for path in stores.values()))
    finally:
        for path in modes:
            path.chmod(0o777)
    if found is None:
        pytest.skip("root cannot become another user here, and file modes do not bind root")
    reasons = dict(zip(stores, found, strict=True))
    assert reasons.pop("open") == "opened, 0 claimed"
    for name in ("file", "folder"):
        assert "is read-only, or its folder is" in reasons.pop(name)
    for reason in reasons.values():
        assert "cannot be written: Permission denied; check who owns it" in reason


async def test_a_replica_of_another_user_counts_as_alive(shared_folder: Path) -> None:
    path = (await shared_stores(shared_folder, "open"))["open"]
    change(
        path,
        "INSERT INTO replicas (id, pid, seen_at) VALUES ('anothers', 1, 0)",
        "UPDATE webhooks SET state = 'pending', decided_at = NULL, owner = 'anothers'",
    )
    path.with_name("webhooks.db-replica-anothers").touch(mode=0)
    found = outcomes(f"sqlite:///{path}")
    if found is None:
        pytest.skip("root cannot become another user here, and file modes do not bind root")
    assert found == ["opened, 0 claimed"]


async def test_what_fails_to_open_leaves_no_file_open(tmp_path: Path, url: str, path: Path) -> None:
    garbage(path)
    change(tmp_path / "foreign.db", *FOREIGN["one of another program"])
    urls = [url, f"sqlite:///{tmp_path}/foreign.db", f"sqlite:///{tmp_path}/{'x' * 230}", f"sqlite:///{tmp_path}/no/x"]
    for one in urls:
        await why_not(SqliteStore(one))
    before = open_files()
    for one in urls:
        await why_not(SqliteStore(one))
    assert open_files() == before


async def test_a_closed_store_leaves_no_file_open_and_nothing_beside_it_but_the_lock(path: Path, url: str) -> None:
    await make(url)
    before = open_files()
    for _ in range(5):
        await make(url)
    assert open_files() == before
    assert {found.name for found in path.parent.iterdir()} == {"webhooks.db", "webhooks.db-lock"}


async def test_a_store_whose_closing_is_cancelled_is_closed_all_the_same(path: Path, url: str) -> None:
    await make(url)
    before = open_files()
    store = SqliteStore(url)
    await store.open(lambda: None)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    assert closing.cancelled()
    await eventually(lambda: open_files() == before)
    assert {found.name for found in path.parent.iterdir()} == {"webhooks.db", "webhooks.db-lock"}


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_store_whose_opening_is_cancelled_is_closed_as_soon_as_it_is_open(
    path: Path, url: str, readonly: bool
) -> None:
    await make(url)
    before = open_files()
    store = SqliteStore(url)
    starting = asyncio.create_task(store.open_readonly() if readonly else store.open(lambda: None))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    await eventually(lambda: not [thread for thread in threading.enumerate() if "reader" in thread.name])
    assert open_files() == before
    assert {found.name for found in path.parent.iterdir()} == {"webhooks.db", "webhooks.db-lock"}
    await make(url)


async def test_looking_creates_no_store(tmp_path: Path) -> None:
    looking = SqliteStore(f"sqlite:///{tmp_path}/webhooks.db")
    with pytest.raises(StoreError, match="there is no store at"):
        await looking.open_readonly()
    assert list(tmp_path.iterdir()) == []


async def test_looking_leaves_the_folder_as_it_was(path: Path, url: str) -> None:
    await make(url)
    before = {found: found.read_bytes() for found in path.parent.iterdir()}
    looking = SqliteStore(url)
    await looking.open_readonly()
    await looking.find(Query())
    await looking.close()
    assert {found: found.read_bytes() for found in path.parent.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"x" * 5000])
async def test_looking_into_no_store_is_an_error_and_changes_nothing(path: Path, url: str, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError):
        await SqliteStore(url).open_readonly()
    assert path.read_bytes() == content


async def test_every_file_is_its_owners_only(path: Path, url: str) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(url)
        await store.open(lambda: None)
        await store.add(arrival("a"))
        modes = {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    beside = {name.removeprefix("webhooks.db").partition("-replica")[0] for name in modes}
    assert beside == {"", "-wal", "-shm", "-lock"}
    assert len(modes) == 5
    assert set(modes.values()) == {0o600}


async def test_a_commit_is_synced_before_it_is_told(path: Path) -> None:
    path.touch()
    connection = connect(path)
    make_durable(connection, path)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_what_a_killed_replica_left_is_cleared_away_by_the_next(path: Path, url: str) -> None:
    with replica_that_stores(url) as idle, replica_that_stores(url, "a") as busy:
        for killed in (idle, busy):
            killed.line("stored")
            killed.kill()
    store = SqliteStore(url)
    await store.open(lambda: None)
    assert await store.take_over() == 1
    assert [found.name for found in path.parent.glob("*-replica-*")] == [f"webhooks.db-replica-{store.replica}"]
    await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM replicas").fetchone() == (0,)
    connection.close()
