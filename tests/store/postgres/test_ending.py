"""An end while the database is away: in time, and without blaming user code."""

import sys
from pathlib import Path

from tests.support.postgres import Server
from tests.support.process import Process
from tests.support.programs import write
from tests.support.whereby import SECRET, deliver
from whereby_trigger.testing import webhook

PROGRAM = """
import asyncio
from pathlib import Path
from whereby_trigger import Trigger, replica
from whereby_trigger.store.postgres import store

store.CLOSE_TIMEOUT = 1.5
replica.DRAIN_MARGIN = 2.0
trigger = Trigger(host="127.0.0.1", port=0, drain_timeout=0, stop_grace=0)

@trigger.when("room.client.joined")
async def predicate(webhook):
    print("asked", flush=True)
    while not Path("away").exists():
        await asyncio.sleep(0.01)
    print("answering", flush=True)
    return True

trigger.start()
"""


def test_a_stop_while_the_database_is_away_ends_by_itself(tmp_path: Path, postgres: Server, url: str) -> None:
    program = [sys.executable, str(write(tmp_path, PROGRAM))]
    settings = {"WHEREBY_WEBHOOK_SECRET": SECRET, "WHEREBY_TRIGGER_STORE": url}
    with Process(program, cwd=tmp_path, env=settings) as process:
        address = f"http://127.0.0.1:{process.port()}/"
        assert deliver(address, webhook("room.client.joined")).status == 200
        process.line("asked")
        postgres.pause()
        try:
            (tmp_path / "away").touch()
            process.line("answering")
            assert process.stop() == 0, process.output
        finally:
            postgres.resume()
        assert "did not return" not in process.output
