"""examples/notify.py: a service, here a local HTTP server, is notified of an assistant that finally failed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES
from tests.support.process import Process, whereby_trigger
from tests.support.whereby import SECRET, deliver
from whereby_trigger.testing import webhook

pytest.importorskip("apprise", reason="apprise is not installed: the example sends with it")

URL = "https://acme.whereby.com/visit-1"
WITHIN = 20.0


class Service:
    """Accept notifications over HTTP, and answer each with a status."""

    def __init__(self, status: int) -> None:
        self.told: Queue[dict[str, Any]] = Queue()
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://127.0.0.1:{self.server.server_port}/"


@contextmanager
def service(status: int = 200) -> Iterator[Service]:
    service = Service(status)
    thread = Thread(target=service.server.serve_forever)
    thread.start()
    try:
        yield service
    finally:
        service.server.shutdown()
        thread.join()
        service.server.server_close()


@contextmanager
def serving(folder: Path, **env: str) -> Iterator[tuple[Process, str]]:
    command = whereby_trigger("start", str(EXAMPLES / "notify.py"), "--port", "0", "--store", "sqlite:///rooms.db")
    with Process(command, cwd=folder, env={"WHEREBY_WEBHOOK_SECRET": SECRET} | env) as process:
        yield process, f"http://127.0.0.1:{process.port()}/"


def test_a_service_is_told_of_an_assistant_that_failed_for_good(tmp_path: Path) -> None:
    with service() as slack, serving(tmp_path, NOTIFY=slack.url) as (_, url):
        assert deliver(url, webhook("room.client.joined", id="w1")).status == 200
        told = slack.told.get(timeout=WITHIN)
        assert told["title"] == "No assistant in a room"
        assert told["message"] == f"{URL}: refused: ASSISTANT_KEY is not set (attempt 1, webhook w1)"


def test_a_service_that_fails_is_named_in_the_log_and_assistants_run_on(tmp_path: Path) -> None:
    with service(500) as slack, serving(tmp_path, NOTIFY=slack.url) as (process, url):
        assert deliver(url, webhook("room.client.joined", room="/visit-1")).status == 200
        slack.told.get(timeout=WITHIN)
        process.line(f"listener tell raised RuntimeError (assistant_event_failed of {URL})")
        assert deliver(url, webhook("room.client.joined", room="/visit-2")).status == 200
        slack.told.get(timeout=WITHIN)


def test_nobody_is_told_of_an_assistant_that_ended(tmp_path: Path) -> None:
    with service() as slack, serving(tmp_path, NOTIFY=slack.url, ASSISTANT_KEY="key") as (process, url):
        assert deliver(url, webhook("room.client.joined", room_session_id="s1")).status == 200
        process.line("room acme.whereby.com/visit-1 live")
        assert deliver(url, webhook("room.session.ended", room_session_id="s1")).status == 200
        process.line(f"{URL}: the session has ended")
        assert slack.told.empty()
