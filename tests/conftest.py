"""Shared by every test."""

import gc
import logging
import os
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from reliability.tools import ToolMissing
from tests.support import forks
from tests.support.memory import MEMORY, is_roomy
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Server, shared_server
from whereby_trigger import loggers
from whereby_trigger.testing import program

# A busy machine is no bug: a property counts by what it finds, not by how long an example took.
settings.register_profile("whereby-trigger", deadline=None, print_blob=True)
settings.load_profile("whereby-trigger")

# A shell starts what runs in its background with SIGINT ignored, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A SQLite store waits for the disk dozens of times until it is open, and thousands of tests open one. The tests of
# power cuts look at the calls, which are the same in memory.
if is_roomy():
    tempfile.tempdir = str(MEMORY)


def pytest_collection_finish() -> None:
    """Exclude from later garbage collections what stays for the whole run: thousands of tests, and modules."""
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def programs_of_the_harness_are_forked() -> Iterator[None]:
    """Fork what the harness starts, such as the receivers of the rows of faults, from a process with its imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "spawn", forks.spawn)
        yield


@pytest.fixture(autouse=True)
def settings_of_this_machine_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests independent of the settings that the user of this machine has for a trigger."""
    for name in list(os.environ):
        if name.startswith(("WHEREBY", "PG")) or name == "PORT":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def lines_can_be_written(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which a line of ours does not fit its values: what a handler raises goes no further."""
    wrong, tell = list[Exception](), loggers.UNFILTERED.handleError

    def note(record: logging.LogRecord) -> None:
        try:
            record.getMessage()
        except Exception as error:
            wrong.append(error)
        tell(record)

    monkeypatch.setattr(loggers.UNFILTERED, "handleError", note)
    yield
    assert wrong == []


@pytest.fixture
def postgres() -> Iterator[Server]:
    """Yield the running server, whatever the test before did to it; drop this test's databases after it."""
    server = shared_server()
    server.revive()
    yield server
    server.revive()
    server.be_done_with_databases()


@pytest.fixture
def bouncer(postgres: Server) -> Iterator[PgBouncer]:
    """Yield a PgBouncer in front of that server; skip the test if it is not installed."""
    try:
        bouncer = PgBouncer(postgres)
    except ToolMissing as missing:
        pytest.skip(str(missing))
    with bouncer:
        yield bouncer
