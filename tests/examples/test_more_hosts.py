"""The host apps that are not Starlette's, each under the servers that its docstring names."""

import json
import re
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES, Run
from tests.support.process import Process
from tests.support.until import until
from tests.support.whereby import deliver, request
from whereby_trigger.testing import webhook

STARTED = 60.0
"""Seconds that several workers may take to import their app, while other tests keep the machine busy."""

VISIT = "https://acme.whereby.com/one"
GUNICORN = ("gunicorn", "--chdir", str(EXAMPLES), "--bind", "127.0.0.1:0")
UVICORN = ("uvicorn", "--app-dir", str(EXAMPLES), "--port", "0")
HOSTS: tuple[tuple[str, ...], ...] = (
    (*GUNICORN, "flask_app:app"),
    (*GUNICORN, "--threads", "4", "flask_app:app"),
    (*GUNICORN, "--preload", "flask_app:app"),
    (*GUNICORN, "--config", str(EXAMPLES / "gunicorn.conf.py"), "flask_app:app"),
    (*GUNICORN, "django_app:application"),
    (*UVICORN, "django_app:asgi_application"),
    (*UVICORN, "litestar_app:app"),
    (*UVICORN, "quart_app:app"),
    (*GUNICORN, "--worker-class", "asgi", "starlette_app:app"),
)
SEVERAL: tuple[tuple[str, ...], ...] = (
    (*GUNICORN, "--workers", "3", "--preload", "flask_app:app"),
    (*GUNICORN, "--workers", "2", "--worker-class", "asgi", "fastapi_app:app"),
    (*UVICORN, "--workers", "2", "starlette_app:app"),
)


def serve(run: Run, command: Sequence[str]) -> tuple[Process, str]:
    server = run(sys.executable, "-m", *command)
    found = re.search(
        r"http://[0-9.]+:[0-9]+", server.line("running on" if command[0] == "uvicorn" else "Listening at")
    )
    assert found is not None
    # The parent process logs where its workers will listen.
    if "asgi" in command:
        server.line("ASGI server listening", STARTED)
    elif command[0] == "uvicorn" and "--workers" in command:
        until(lambda: listens(found[0]), STARTED)
    return server, found[0]


def listens(host: str) -> bool:
    try:
        return request("GET", f"{host}/whereby").status == 200
    except ConnectionRefusedError:
        return False


def shown(url: str) -> Any:
    return json.loads(request("GET", url).body)


def called(command: Sequence[str]) -> str:
    return " ".join(Path(part).name for part in (command[0], *command[5:]))


def replicas(store: str) -> int:
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection:
        (number,) = connection.execute("SELECT count(*) FROM replicas").fetchone()
        return int(number)


@pytest.mark.parametrize("command", HOSTS, ids=called)
def test_a_host_app_takes_deliveries_beside_its_own_pages_and_ends_in_order(
    run: Run, store: str, command: Sequence[str]
) -> None:
    server, host = serve(run, command)
    joined = webhook("room.client.joined", room="/one")
    bot = webhook("room.client.joined", room="/one", role_name="recorder")
    assert [deliver(f"{host}/whereby", one).status for one in (joined, joined, bot)] == [200, 200, 200]
    assert until(lambda: shown(f"{host}/visits") == {VISIT: 1} or None)
    assert deliver(f"{host}/whereby", joined, secret="forged").status == 401
    assert request("GET", f"{host}/nothing").status == 404
    assert replicas(store) == 1
    # uvicorn raises the signal again once it has ended.
    assert server.stop() == (0 if command[0] == "gunicorn" else -signal.SIGTERM)
    assert replicas(store) == 0, "it has not left the store in order"


@pytest.mark.parametrize("command", SEVERAL, ids=called)
def test_several_workers_share_the_store_and_each_webhook_is_decided_once(
    run: Run, store: str, command: Sequence[str]
) -> None:
    server, host = serve(run, command)
    sent = [
        webhook("assistant.requested" if "fastapi_app:app" in command else "room.client.joined", room=f"/{n}")
        for n in range(8)
    ]
    assert {deliver(f"{host}/whereby", one).status for one in sent for _ in range(3)} == {200}
    assert until(lambda: len(fired := decided(store)) == len(sent) and fired) == [("fired", 3)] * len(sent)
    if "--preload" not in command:
        # A lifespan starts a worker's trigger with it, without a request; a server may lose a signal before that.
        until(lambda: replicas(store) == 2, STARTED)
    assert 1 <= replicas(store) <= 3
    assert server.stop() == 0
    assert replicas(store) == 0, "it has not left the store in order"


def decided(store: str) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection:
        return connection.execute("SELECT state, deliveries FROM webhooks WHERE state <> 'pending'").fetchall()
