"""The store's URL in a file: its user and password are rotated without a restart, and nothing else is."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.arrivals import arrival
from tests.support.postgres import Server, database_of
from tests.support.postgres_roles import PASSWORD, Role, Roles
from tests.support.until import eventually
from whereby_trigger.config import resolve
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Store
from whereby_trigger.store.factory import store_for

pytestmark = pytest.mark.anyio

NEW = "n3w & better"


@pytest.fixture
def role(roles: Roles, url: str, postgres: Server) -> Role:
    """Create a role that owns the database."""
    role = roles.new()
    postgres.run(f"ALTER DATABASE {database_of(url)} OWNER TO {role.name}", database_of(url))
    return role


def write(file: Path, url: str) -> None:
    """Replace a file by another one, as Kubernetes and editors do."""
    new = file.with_suffix(".new")
    new.write_text(f"{url}\n", encoding="utf-8")
    os.replace(new, file)


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[Store]:
    """Open the store that a file names, with the settings of a program without any others."""
    settings = resolve({}, {}, {"WHEREBY_TRIGGER_STORE_FILE": str(file)}).settings
    store = store_for(settings.store, settings.lease_ttl, settings.store_file)
    await store.open(lambda: None)
    try:
        yield store
    finally:
        await store.close()


def disconnect(postgres: Server, url: str) -> None:
    postgres.run(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database_of(url)}'")


async def stored(store: Store, id: str) -> bool:
    """Store a webhook; return False if the store is unavailable now."""
    try:
        await store.add(arrival(id))
    except StoreUnavailable:
        return False
    return True


async def test_a_new_connection_uses_the_password_that_the_file_holds_by_then(
    postgres: Server, url: str, role: Role, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "store"
    before = role.url(url)
    write(file, before)
    async with opened(file) as store:
        assert await stored(store, "before")
        postgres.run(f"ALTER ROLE {role.name} PASSWORD '{NEW}'")
        assert await stored(store, "on the connection that is there")
        write(file, before.replace(quote(PASSWORD, safe=""), quote(NEW, safe="")))
        disconnect(postgres, url)
        await eventually(lambda: stored(store, "after"))
    assert "the user or password of the store has changed" in caplog.text
    assert NEW not in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_file_that_is_late_delays_a_new_connection_and_loses_nothing(
    postgres: Server, url: str, role: Role, tmp_path: Path
) -> None:
    file = tmp_path / "store"
    before = role.url(url)
    write(file, before)
    async with opened(file) as store:
        postgres.run(f"ALTER ROLE {role.name} PASSWORD '{NEW}'")
        disconnect(postgres, url)
        await eventually(lambda: refused(store))
        write(file, before.replace(quote(PASSWORD, safe=""), quote(NEW, safe="")))
        await eventually(lambda: stored(store, "after"))


async def refused(store: Store) -> bool:
    return not await stored(store, "meanwhile")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url.replace("127.0.0.1", "127.0.0.2"), "names another database or other options now"),
        (lambda url: url + "?sslmode=disable", "names another database or other options now"),
        (lambda url: "sqlite:///other.db", "begins with 'sqlite'"),
        (lambda url: "", "must be a string that is not blank"),
    ],
)
async def test_what_else_the_file_says_is_told_once_and_changes_nothing(
    postgres: Server, url: str, role: Role, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: object, says: str
) -> None:
    assert callable(change)
    file = tmp_path / "store"
    write(file, role.url(url))
    async with opened(file) as store:
        write(file, change(role.url(url)))
        disconnect(postgres, url)
        await eventually(lambda: stored(store, "after"))
    told = [record.getMessage() for record in caplog.records if "that were read before" in record.getMessage()]
    assert len(told) == 1
    assert says in told[0]
    assert quote(PASSWORD, safe="") not in caplog.text


async def test_a_file_that_is_gone_changes_nothing(postgres: Server, url: str, role: Role, tmp_path: Path) -> None:
    file = tmp_path / "store"
    write(file, role.url(url))
    async with opened(file) as store:
        file.unlink()
        disconnect(postgres, url)
        await eventually(lambda: stored(store, "after"))
