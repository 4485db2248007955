"""The trigger as a WSGI app: the 200 comes after the commit, and what cannot run says why."""

import asyncio
import io
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from queue import Queue
from typing import Any
from wsgiref.util import is_hop_by_hop, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from tests.support.scraping import scrape
from tests.support.stored import stored
from tests.support.whereby import SECRET
from whereby_trigger import RoomState, Session, StoreError, Trigger, TriggerSuccess
from whereby_trigger.metrics import Counts
from whereby_trigger.receive import wsgi
from whereby_trigger.store import Arrival
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import sign, webhook

TERMINATED: dict[str, Any] = {"wsgi.input_terminated": True}
JOINED = webhook("room.client.joined", room="/visit-1")


@pytest.fixture
def served(trigger: Trigger) -> Iterator[Trigger]:
    yield trigger
    trigger.wsgi.stop()


def ask(trigger: Trigger, method: str = "POST", body: bytes = b"", **environ: Any) -> tuple[int, dict[str, str], bytes]:
    """Make one request of the app, checked against PEP 3333."""
    given: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": "/", "SCRIPT_NAME": "", "QUERY_STRING": ""}
    given |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)), "SERVER_PROTOCOL": "HTTP/1.1"} | environ
    setup_testing_defaults(given)
    answered: list[Any] = []
    result = validator(trigger.wsgi)(given, lambda *answer: answered.append(answer))  # type: ignore[arg-type]
    content = b"".join(result)
    result.close()  # type: ignore[attr-defined]
    status, headers = answered[0][:2]
    assert not any(is_hop_by_hop(name) for name, _ in headers)
    return int(status[:3]), dict(headers), content


def deliver(trigger: Trigger, body: bytes, secret: str = SECRET, **environ: Any) -> int:
    signature = sign(secret, body, int(time.time()))
    return ask(trigger, body=body, HTTP_WHEREBY_SIGNATURE=signature, **environ)[0]


def test_a_delivery_is_stored_before_its_200_and_decided(
    served: Trigger, url: str, heard: "Queue[TriggerSuccess]"
) -> None:
    assert deliver(served, JOINED.raw) == 200
    assert [record.id for record in stored(url)] == [JOINED.id]
    assert heard.get(timeout=10).trigger_webhook == JOINED
    assert deliver(served, JOINED.raw) == 200
    assert stored(url)[0].deliveries == 2


def test_refusals_are_those_of_the_other_servers(served: Trigger, url: str) -> None:
    assert deliver(served, JOINED.raw, secret="forged") == 401
    assert ask(served, body=JOINED.raw)[0] == 401
    assert deliver(served, b"x" * 300_000) == 413
    assert ask(served, "PUT")[0] == 405
    assert ask(served, PATH_INFO="/elsewhere")[0] == 404
    assert [ask(served, "GET", PATH_INFO=path)[0] for path in ("/", "/livez", "/readyz")] == [200, 200, 200]
    assert stored(url) == []


def test_below_a_prefix_the_path_counts_from_there(served: Trigger) -> None:
    assert deliver(served, JOINED.raw, SCRIPT_NAME="/hooks", PATH_INFO="/") == 200
    assert deliver(served, JOINED.raw, SCRIPT_NAME="/hooks", PATH_INFO="") == 200
    assert deliver(served, JOINED.raw, SCRIPT_NAME="", PATH_INFO="/hooks") == 404


def test_a_chunked_body_is_read_where_the_server_marks_its_end(served: Trigger) -> None:
    assert deliver(served, JOINED.raw, CONTENT_LENGTH="", **TERMINATED) == 200
    assert deliver(served, b"x" * 300_000, CONTENT_LENGTH="", **TERMINATED) == 413
    assert deliver(served, JOINED.raw, CONTENT_LENGTH="") == 401


async def leave_undecided(url: str) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    key = "acme.whereby.com/visit-1"
    await store.add(Arrival(JOINED.id, JOINED.type, key, JOINED.raw, time.time()))
    await store.close()


def test_what_was_left_undecided_is_decided_once_a_worker_starts(
    served: Trigger, heard: "Queue[TriggerSuccess]", url: str
) -> None:
    asyncio.run(leave_undecided(url))
    served.wsgi.start()
    assert heard.get(timeout=10).trigger_webhook == JOINED
    served.wsgi.start()


def test_many_threads_start_it_once(served: Trigger, url: str) -> None:
    begin = threading.Barrier(8)
    answers: list[int] = []

    def send(number: int) -> None:
        begin.wait()
        answers.append(deliver(served, webhook("room.client.joined", room=f"/{number}").raw))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    assert len(stored(url)) == 8


def test_a_store_that_cannot_be_opened_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsgi, "START_AGAIN", 0.0)
    trigger = Trigger(secret=SECRET, store=f"sqlite:///{tmp_path}/later/webhooks.db")
    with caplog.at_level(logging.ERROR):
        status, headers, _ = ask(trigger, "GET")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "the trigger does not run" in caplog.text
    assert deliver(trigger, JOINED.raw) == 503
    seen = asyncio.run(scrape(trigger.metrics))
    assert seen.above_zero("deliveries_total") == {("not running", "503"): 1}
    with pytest.raises(StoreError, match="later"):
        trigger.wsgi.start()
    (tmp_path / "later").mkdir()
    assert ask(trigger, "GET")[0] == 200
    trigger.wsgi.stop()
    trigger.wsgi.stop()


def test_a_stop_during_the_start_stops_it_once_it_has_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "START_WITHIN", 0.0)
    go, left, bounds = threading.Event(), threading.Event(), Queue[float]()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await asyncio.to_thread(go.wait)
        yield
        left.set()

    app = wsgi.WsgiApp(lifespan, bounds.put, lambda: None, Counts())
    with pytest.raises(TimeoutError, match="has not opened its store"):
        app.start()
    app.stop(within=3.0)
    go.set()
    assert left.wait(10)
    assert bounds.get(timeout=0) == 3.0


def test_an_assistant_is_told_to_leave_before_its_worker_is_gone_however_long_a_drain_may_take(
    trigger: Trigger, url: str
) -> None:
    rooms, reasons = Queue[str](), Queue[str]()

    @trigger.assistant
    async def assistant(session: Session) -> None:
        rooms.put(session.room_name)
        reasons.put(await session.ended)

    trigger.wsgi.start()
    asyncio.run(trigger.start_assistant("https://acme.whereby.com/visit-1"))
    assert rooms.get(timeout=10) == "/visit-1"
    trigger.wsgi.stop(within=12.0)
    assert reasons.get(timeout=0) == "the replica is draining"
    (room,) = asyncio.run(trigger.list_assistants())
    assert room.state is RoomState.WAITING


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_trigger_that_was_started_before_a_fork_says_what_to_do(
    served: Trigger, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(served, "GET")[0] == 200
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        # Nothing of pytest may run here.
        status = ask(served, "GET")[0]
        os.write(writing, f"{status} {caplog.text}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading, encoding="utf-8") as told:
        words = told.read()
    assert words.startswith("503 ")
    assert "post_worker_init" in words
    assert ask(served, "GET")[0] == 200


def test_it_needs_a_secret_since_anybody_may_reach_the_host(tmp_path: Path) -> None:
    trigger = Trigger(store=f"sqlite:///{tmp_path}/webhooks.db")
    assert ask(trigger, "GET")[0] == 503
