"""A signal that comes while a start waits for its database ends the start immediately, not after the answer."""

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.connecting import connected
from tests.support.postgres import HOST, Server, database_of
from tests.support.process import Process
from tests.support.programs import write
from tests.support.until import eventually
from tests.support.whereby import SECRET
from whereby_trigger.store.postgres import opening

pytestmark = pytest.mark.anyio

PROGRAM = """
import logging
from whereby_trigger import Trigger
trigger = Trigger(host="127.0.0.1", port=0)
trigger.when("room.client.joined")(lambda webhook: True)
print("starting", flush=True)
trigger.start()
print("returned", flush=True)
"""
AT_ONCE = 15.0
"""Seconds in which an aborted start has ended on a busy machine: waiting for a lock takes much longer."""

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

each_signal = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@contextmanager
def started(folder: Path, url: str, spill: str | None = None) -> Iterator[Process]:
    environment = {"WHEREBY_WEBHOOK_SECRET": SECRET, "WHEREBY_TRIGGER_STORE": url}
    if spill is not None:
        environment["WHEREBY_TRIGGER_SPILL"] = f"sqlite:///{folder / spill}"
    with Process([sys.executable, str(write(folder, PROGRAM))], cwd=folder, env=environment) as process:
        process.line("starting")
        yield process


@each_signal
@pytest.mark.parametrize("spill", [None, "spill.db"])
async def test_while_another_migrates(
    tmp_path: Path, postgres: Server, url: str, spill: str | None, number: signal.Signals
) -> None:
    async with connected(url) as migrating, connected(url) as looking:
        await migrating.execute(f"BEGIN; {opening.LOCK}")
        with started(tmp_path, url, spill) as process:
            await eventually(lambda: looking.fetchval(WAITING))
            assert process.stop(number, AT_ONCE) == 0, process.output
            assert "returned" in process.output
            assert "Traceback" not in process.output
    assert postgres.run("SELECT to_regnamespace('whereby_trigger') IS NULL", database_of(url)) == "t"


def test_while_a_database_does_not_greet(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        with started(tmp_path, f"postgresql://app@{HOST}:{port}/x") as process:
            silent.settimeout(AT_ONCE)
            greeted, _ = silent.accept()
            with greeted:
                assert process.stop(signal.SIGTERM, AT_ONCE) == 0, process.output
            assert "returned" in process.output
