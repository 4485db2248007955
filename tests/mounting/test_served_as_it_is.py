"""`uvicorn app:trigger.asgi`: the trigger alone is an ASGI app, with its own lifespan."""

import re
import sys
from pathlib import Path

from tests.support.process import Process
from tests.support.stored import stored
from tests.support.whereby import SECRET, deliver, request
from whereby_trigger.testing import webhook

APP = """
import asyncio
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger

trigger = Trigger(webhook_triggers={{"room.client.joined": lambda: True}}, store="sqlite:///webhooks.db"{keywords})
stopping = asyncio.Event()

@trigger.on(TRIGGER_EVENT_SUCCESS)
async def join(success):
    print("joining", success.room_url, flush=True)
    try:
        await asyncio.sleep(0 if success.room_url.endswith("/short") else 60)
    finally:
        print("left", success.room_url, flush=True)
"""
SIGNED = {"WHEREBY_WEBHOOK_SECRET": SECRET}


def uvicorn(folder: Path, *options: str, env: dict[str, str] = SIGNED, keywords: str = "") -> Process:
    (folder / "app.py").write_text(APP.format(keywords=keywords))
    command = [sys.executable, "-m", "uvicorn", "app:trigger.asgi", "--port", "0", *options]
    return Process(command, cwd=folder, env=env)


def address(server: Process) -> str:
    found = re.search(r"http://[0-9.:]+", server.line("Uvicorn running on"))
    assert found is not None
    return found[0]


def test_it_takes_deliveries_once_each_and_drains_when_uvicorn_stops(tmp_path: Path) -> None:
    short = webhook("room.client.joined", room="/short")
    with uvicorn(tmp_path) as server:
        url = address(server)
        assert [deliver(url, short).status for _ in range(2)] == [200, 200]
        assert deliver(url, webhook("room.client.joined"), secret="another").status == 401
        server.line("left https://acme.whereby.com/short")
        server.stop()
        assert server.output.count("joining") == 1
        assert "Application shutdown complete" in server.output
    assert [(record.state, record.deliveries) for record in stored(f"sqlite:///{tmp_path}/webhooks.db")] == [
        ("fired", 2)
    ]


def test_its_drain_ends_when_the_drain_timeout_is_over(tmp_path: Path) -> None:
    with uvicorn(tmp_path, keywords=", drain_timeout=0") as server:
        assert deliver(address(server), webhook("room.client.joined", room="/long")).status == 200
        server.line("joining https://acme.whereby.com/long")
        server.stop()
        assert "left https://acme.whereby.com/long" in server.output
        assert "draining" not in server.output


def test_what_the_drain_waits_for_and_how_long_is_said_where_there_is_any(tmp_path: Path) -> None:
    with uvicorn(tmp_path, keywords=", drain_timeout=0.1") as server:
        server.line("Uvicorn running on")
        server.stop()
        assert "draining" not in server.output
    with uvicorn(tmp_path, keywords=", drain_timeout=0.1") as server:
        assert deliver(address(server), webhook("room.client.joined", room="/long")).status == 200
        server.line("joining https://acme.whereby.com/long")
        server.stop()
        assert "draining for at most 10.1 s: async predicates or listeners run" in server.output


def test_without_a_secret_it_refuses_to_start_and_says_what_to_set(tmp_path: Path) -> None:
    with uvicorn(tmp_path, env={}) as server:
        assert server.wait() != 0
        assert "a mounted trigger needs a secret" in server.output
        assert "set WHEREBY_WEBHOOK_SECRET, or allow_unsigned=True" in server.output
        assert "Uvicorn running" not in server.output


def test_it_answers_at_its_path_and_nowhere_else(tmp_path: Path) -> None:
    with uvicorn(tmp_path, keywords=', path="/hooks/k3y"') as server:
        url = address(server)
        assert deliver(f"{url}/hooks/k3y", webhook("room.client.joined")).status == 200
        assert deliver(f"{url}/", webhook("room.client.joined")).status == 404
        assert request("GET", f"{url}/readyz").status == 200


def test_a_prefix_that_a_proxy_strips_and_uvicorn_is_told_of_changes_nothing(tmp_path: Path) -> None:
    with uvicorn(tmp_path, "--root-path", "/api", keywords=', path="/whereby"') as server:
        url = address(server)
        assert deliver(f"{url}/whereby", webhook("room.client.joined")).status == 200
        assert deliver(f"{url}/other", webhook("room.client.joined")).status == 404
