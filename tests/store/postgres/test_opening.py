"""The ways to reach a database: those that work, and the error for one that does not."""

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import decided
from tests.support.postgres import HOST, SUPERUSER, Server, database_of
from tests.support.postgres_roles import PASSWORD, Roles
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.postgres import PostgresStore

pytestmark = pytest.mark.anyio


async def test_a_password_may_hold_any_character_escaped(url: str, roles: Roles, opened: Replicas) -> None:
    role = roles.new("SUPERUSER")
    store = await opened(role.url(url))
    await decided(store, "one")
    assert PASSWORD not in store.location


@pytest.mark.parametrize("options", ["?sslmode=disable", "?pooler=yes", "?pooler=no", "?connect_timeout=3"])
async def test_an_option_of_the_url_does_what_it_says_or_no_harm(url: str, opened: Replicas, options: str) -> None:
    await decided(await opened(url + options), "one")


async def test_the_environment_has_what_the_url_leaves_out(
    postgres: Server, url: str, monkeypatch: pytest.MonkeyPatch, opened: Replicas
) -> None:
    variables = {"HOST": HOST, "PORT": str(postgres.port), "USER": SUPERUSER, "PASSWORD": postgres.password}
    for name, value in (variables | {"DATABASE": database_of(url)}).items():
        monkeypatch.setenv(f"PG{name}", value)
    store = await opened("postgresql://")
    await decided(store, "one")
    assert store.location == "postgresql://"


@pytest.mark.parametrize("by_environment", [False, True])
async def test_a_service_describes_what_the_url_leaves_out(
    postgres: Server, url: str, roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    role = roles.new("SUPERUSER")
    file = tmp_path / "services"
    lines = [f"host={HOST}", f"port={postgres.port}", f"user={role.name}", f"password={PASSWORD}"]
    file.write_text("\n".join(["[webhooks]", *lines, f"dbname={database_of(url)}"]), encoding="utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    if by_environment:
        monkeypatch.setenv("PGSERVICE", "webhooks")
    store = store_for("postgresql://" if by_environment else "postgresql://?service=webhooks")
    assert await store.migrate() != []
    assert "service=webhooks" in store.location
    assert PASSWORD not in store.location


@pytest.fixture(scope="module")
def with_socket() -> Iterator[Server]:
    """Yield a server that also listens on a socket in its folder."""
    server = Server(quick=True)
    try:
        server.start(unix_socket_directories=str(server.folder))
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("form", ["{escaped}:{port}/postgres", "/postgres?host={folder}&port={port}"])
async def test_a_socket_in_a_folder_is_a_host(with_socket: Server, opened: Replicas, form: str) -> None:
    folder = str(with_socket.folder)
    where = form.format(escaped=quote(folder, safe=""), folder=folder, port=with_socket.port)
    await opened(f"postgresql://{SUPERUSER}:{with_socket.password}@{where}")


@pytest.fixture
def silent() -> Iterator[int]:
    """Yield a port that accepts connections and never answers."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def deaf() -> Iterator[int]:
    """Yield a port on which nothing listens, now or later."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


REFUSED = [
    ("postgresql://{role}:hush@{there}", "password authentication failed .* check user and password"),
    ("postgresql://nobody:hush@{there}", "password authentication failed .* check user and password"),
    ("postgresql://{limited}@{there}", "too many connections .* allow more connections"),
    ("{url}_none", 'database "[a-z_0-9]*" does not exist; create the database, or name another'),
    ("{url}?nonsense=1", 'unrecognized configuration parameter "nonsense"; leave that option out of the URL'),
    ("{url}?sslmode=perhaps", "`sslmode` parameter must be one of: disable.* correct its URL"),
    ("{url}?sslmode=require", "rejected SSL upgrade; check that sslmode and sslrootcert fit the server"),
    ("{url}?sslmode=verify-full&sslrootcert=/none", "No such file .* certificate in its URL"),
    ("postgresql://app:hush@{host}:{deaf}/x", "Connect call failed .*; check that it runs, and that host and port"),
    ("postgresql://app:hush@{host}:{silent}/x", "no answer within 4 s; check that it runs, and that host and port"),
    ("postgresql://app:hush@no.such.host.invalid/x", "; check that it runs, and that host and port are right"),
    ("postgresql://app:hush@{host}:70000/x", "cannot be"),
    ("postgresql://app:hush@/x?host=/none", "No such file .* the socket or certificate in its URL"),
]


@pytest.mark.parametrize(("form", "says"), REFUSED, ids=[form for form, _ in REFUSED])
async def test_where_it_cannot_be_opened_a_line_says_why_and_what_to_do(
    postgres: Server, url: str, roles: Roles, silent: int, deaf: int, form: str, says: str
) -> None:
    there = f"{HOST}:{postgres.port}/{database_of(url)}"
    limited = roles.new("CONNECTION LIMIT 0")
    names = {"role": limited.name, "limited": limited.url(url).partition("//")[2].partition("@")[0]}
    wrong = form.format(url=url, there=there, host=HOST, silent=silent, deaf=deaf, **names)
    with pytest.raises(StoreError, match=says) as refusal:
        await PostgresStore(wrong).open_readonly()
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"the store {PostgresStore(wrong).location} ")
    assert not any(secret in str(refusal.value) for secret in ("hush", postgres.password, PASSWORD))


async def test_whatever_it_is_opened_for_the_reason_is_the_same(url: str) -> None:
    store = PostgresStore(f"{url}_none")
    for use in (store.open_readonly, store.migrate, store.look, partial(store.open, lambda: None)):
        with pytest.raises(StoreError, match="does not exist; create the database, or name another"):
            await use()


@pytest.mark.parametrize("form", ["postgresql://{role}:hush@{there}", "{url}_none", "{url}?nonsense=1"])
async def test_what_another_try_would_not_change_is_no_outage(
    postgres: Server, url: str, roles: Roles, form: str
) -> None:
    there = f"{HOST}:{postgres.port}/{database_of(url)}"
    with pytest.raises(StoreError) as refusal:
        await PostgresStore(form.format(url=url, there=there, role=roles.new().name)).open_readonly()
    assert not isinstance(refusal.value, StoreUnavailable)
