"""What every test shares."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.postgres import Server

# A busy machine is no bug: a property is judged by what it finds, not by how long an example took.
settings.register_profile("whereby-trigger", deadline=None, print_blob=True)
settings.load_profile("whereby-trigger")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def settings_of_this_machine_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no test depend on what whoever runs it has set for a trigger of theirs."""
    for name in list(os.environ):
        if name.startswith("WHEREBY") or name == "PORT":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Run one PostgreSQL for all tests of this process."""
    with Server() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Server) -> Iterator[Server]:
    """Give the server, running, whatever the test before did to it; the databases of this test go with it."""
    postgres_server.revive()
    yield postgres_server
    postgres_server.revive()
    postgres_server.drop_databases()
