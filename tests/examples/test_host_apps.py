"""The two host apps, served by uvicorn as their docstrings say."""

import json
import re
import sys
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES, Run
from tests.support.until import until
from tests.support.whereby import deliver, request
from whereby_trigger.testing import webhook

Served = Any


@pytest.fixture
def serve(run: Run) -> Served:
    def serve(app: str) -> str:
        server = run(sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), app, "--port", "0")
        found = re.search(r"http://[0-9.:]+", server.line("Uvicorn running on"))
        assert found is not None
        return found[0]

    return serve


def seen(url: str) -> Any:
    return json.loads(request("GET", url).body)


def test_the_fastapi_app_shows_open_rooms_and_each_request_for_an_assistant_once(serve: Served) -> None:
    host = serve("fastapi_app:app")
    requested = webhook("assistant.requested", room="/one")
    sent = [
        webhook("room.session.started", room="/one"),
        webhook("room.session.started", room="/two"),
        webhook("room.session.ended", room="/two"),
        requested,
        requested,
    ]
    assert [deliver(f"{host}/whereby", one).status for one in sent] == [200] * 5
    expected = {"rooms": ["/one"], "assistant_requests": ["https://acme.whereby.com/one"]}
    assert until(lambda: (shown := seen(f"{host}/rooms")) == expected and shown)
    assert deliver(f"{host}/whereby", requested, secret="forged").status == 401


def test_the_starlette_app_counts_visits_of_people(serve: Served) -> None:
    host = serve("starlette_app:app")
    first = webhook("room.client.joined", room="/one")
    bot = webhook("room.client.joined", room="/one", role_name="recorder")
    last = webhook("room.client.joined", room="/two")
    assert [deliver(f"{host}/whereby", sent).status for sent in (first, first, bot, last)] == [200] * 4
    counts = {"https://acme.whereby.com/one": 1, "https://acme.whereby.com/two": 1}
    assert until(lambda: (shown := seen(f"{host}/visits")) == counts and shown)
