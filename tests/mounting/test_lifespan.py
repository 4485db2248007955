"""The trigger runs during the host app's lifespan, and does not touch the rest of the process."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Route

from tests.mounting.hosts import fastapi_add_route
from tests.support.host import Hosted
from tests.support.stored import stored
from tests.support.whereby import SECRET, deliver, request
from whereby_trigger import TRIGGER_EVENT_SUCCESS, ConfigError, LifecycleError, Session, Trigger, TriggerSuccess
from whereby_trigger.testing import webhook

WITHIN = 10.0

Host = Callable[..., Starlette]
HOSTS: dict[str, Host] = {"fastapi": FastAPI, "starlette": Starlette}


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_inside_a_lifespan_of_the_hosts_own_listeners_end_before_what_they_use(host: Host, trigger: Trigger) -> None:
    order: list[str] = []
    begun: Queue[None] = Queue()
    stopping = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        order.append("the host opens its pool")
        async with trigger.lifespan(app):
            yield
            # After this, so the listener still runs when the trigger's lifespan begins to end.
            asyncio.get_running_loop().call_later(0.1, stopping.set)
        order.append("the host closes its pool")

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def use_the_pool() -> None:
        begun.put(None)
        await stopping.wait()
        order.append("a listener is done with the pool")

    app = host(lifespan=lifespan)
    app.add_route("/whereby", trigger.asgi)
    with Hosted(app) as served:
        assert deliver(f"{served.url}/whereby", webhook("room.client.joined")).status == 200
        begun.get(timeout=WITHIN)
    assert order == ["the host opens its pool", "a listener is done with the pool", "the host closes its pool"]


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_without_the_lifespan_a_delivery_is_answered_503_and_the_log_says_what_to_add(
    host: Host, trigger: Trigger, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def another(app: Starlette) -> AsyncIterator[None]:
        yield

    app = host(lifespan=another)
    app.add_route("/whereby", trigger.asgi)
    with Hosted(app) as served:
        answers = [deliver(f"{served.url}/whereby", webhook("room.client.joined")) for _ in range(2)]
    assert [answer.status for answer in answers] == [503, 503]
    assert answers[0].headers["retry-after"] == "5"
    hints = [record.getMessage() for record in caplog.records if record.name.startswith("whereby_trigger")]
    assert len(hints) == 1
    assert "FastAPI(lifespan=trigger.lifespan)" in hints[0]
    assert "async with trigger.lifespan(app):" in hints[0]
    assert not file_of(url).exists()


def test_a_host_that_starts_again_has_decided_what_its_last_run_left_pending(url: str) -> None:
    trigger = Trigger(secret=SECRET, store=url, drain_timeout=0)
    asked: Queue[None] = Queue()
    heard: Queue[TriggerSuccess] = Queue()
    trigger.on(TRIGGER_EVENT_SUCCESS, heard.put)

    @trigger.when("room.client.joined")
    async def only_in_the_second_run() -> bool:
        asked.put(None)
        return not first_run or await asyncio.Event().wait()

    app, path = fastapi_add_route(trigger)
    first_run = True
    with Hosted(app) as host:
        assert deliver(host.url + path, webhook("room.client.joined")).status == 200
        asked.get(timeout=WITHIN)
    assert [record.state for record in stored(url)] == ["pending"]
    first_run = False
    with Hosted(app):
        assert heard.get(timeout=WITHIN).attempt == 2
    assert [record.state for record in stored(url)] == ["fired"]


@pytest.mark.anyio
async def test_without_a_secret_the_lifespan_refuses_and_says_what_to_set(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHEREBY_WEBHOOK_SECRET", raising=False)
    trigger = Trigger(store=url)
    with pytest.raises(ConfigError, match="set WHEREBY_WEBHOOK_SECRET, or allow_unsigned=True"):
        async with trigger.lifespan(FastAPI()):
            pass
    assert not file_of(url).exists()


@pytest.mark.parametrize(("allow_unsigned", "environment"), [(True, None), (None, SECRET)])
def test_a_secret_in_the_environment_will_do_and_so_will_allowing_unsigned_deliveries(
    allow_unsigned: bool | None, environment: str | None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHEREBY_WEBHOOK_SECRET", raising=False)
    if environment is not None:
        monkeypatch.setenv("WHEREBY_WEBHOOK_SECRET", environment)
    app, path = fastapi_add_route(Trigger(store=url, allow_unsigned=allow_unsigned))
    with Hosted(app) as host:
        unsigned = deliver(host.url + path, webhook("room.client.joined"), secret=None)
        signed = deliver(host.url + path, webhook("room.client.joined"))
    assert (unsigned.status, signed.status) == (200 if allow_unsigned else 401, 200)


@pytest.mark.anyio
async def test_a_trigger_that_runs_cannot_be_started_a_second_time(trigger: Trigger) -> None:
    async with trigger.lifespan():
        with pytest.raises(LifecycleError, match="running already"):
            async with trigger.lifespan():
                pass
        with pytest.raises(LifecycleError, match="running already"):
            async with trigger:
                pass


@pytest.mark.anyio
async def test_mounted_no_signal_is_taken_and_no_logging_configured(trigger: Trigger) -> None:
    def hands_off() -> tuple[Any, ...]:
        loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.Logger.manager.loggerDict))]
        ours = [one for one in loggers if one.name == "root" or one.name.startswith("whereby_trigger")]
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        return handlers, [(one.name, list(one.handlers), one.level, one.propagate) for one in ours]

    before = hands_off()
    async with trigger.lifespan(FastAPI()):
        assert hands_off() == before
    assert hands_off() == before


@pytest.mark.anyio
async def test_a_port_for_metrics_leaves_the_access_log_of_a_host_on_uvicorn_as_it_is(url: str) -> None:
    access, theirs = logging.getLogger("uvicorn.access"), logging.NullHandler()
    access.addHandler(theirs)
    try:
        async with Trigger(secret=SECRET, store=url, metrics="127.0.0.1:0").lifespan(FastAPI()):
            assert theirs in access.handlers
            assert access.propagate
    finally:
        access.removeHandler(theirs)


@pytest.mark.anyio
async def test_an_assistant_that_the_drain_waits_for_is_spoken_of(url: str, caplog: pytest.LogCaptureFixture) -> None:
    trigger = Trigger(secret=SECRET, store=url, drain_timeout=0.1)
    there = asyncio.Event()

    @trigger.assistant
    async def stay(session: Session) -> None:
        there.set()
        await session.ended

    async with trigger.lifespan():
        await trigger.start_assistant("https://acme.whereby.com/visit-1")
        await asyncio.wait_for(there.wait(), WITHIN)
    assert "draining for at most 20.1 s: 1 assistant is in its room" in caplog.messages


@pytest.mark.anyio
async def test_a_websocket_that_the_host_routes_here_is_closed(trigger: Trigger) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await trigger.asgi({"type": "websocket", "path": "/whereby"}, None, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_several_triggers_in_one_host_app_each_take_their_own_deliveries(tmp_path: Path) -> None:
    secrets = {"clinic": "the clinic's secret", "school": "the school's secret"}
    stores = {name: f"sqlite:///{tmp_path}/{name}.db" for name in secrets}
    triggers = {name: Trigger(secret=secrets[name], store=stores[name]) for name in secrets}
    told: Queue[str] = Queue()
    for name, trigger in triggers.items():
        trigger.on("room.client.joined", lambda webhook, name=name: told.put(f"{name}: {webhook.data.room_name}"))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with triggers["clinic"].lifespan(app), triggers["school"].lifespan(app):
            yield

    app = Starlette(lifespan=lifespan, routes=[Route(f"/{name}", triggers[name].asgi) for name in triggers])
    with Hosted(app) as host:
        for name, room in (("clinic", "/visit"), ("school", "/lesson")):
            joined = webhook("room.client.joined", room=room)
            other = next(secrets[another] for another in secrets if another != name)
            assert deliver(f"{host.url}/{name}", joined, secret=other).status == 401
            assert deliver(f"{host.url}/{name}", joined, secret=secrets[name]).status == 200
        assert {told.get(timeout=WITHIN) for _ in secrets} == {"clinic: /visit", "school: /lesson"}
    assert [len(stored(stores[name])) for name in secrets] == [1, 1]


def test_without_a_store_of_its_own_a_second_trigger_takes_the_firsts_webhook_for_a_duplicate(url: str) -> None:
    triggers = [Trigger(secret=SECRET, store=url) for _ in range(2)]
    told: Queue[int] = Queue()
    for number, trigger in enumerate(triggers):
        trigger.on("room.client.joined", lambda webhook, number=number: told.put(number))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with triggers[0].lifespan(app), triggers[1].lifespan(app):
            yield

    app = Starlette(lifespan=lifespan, routes=[Route(f"/{n}", trigger.asgi) for n, trigger in enumerate(triggers)])
    joined = webhook("room.client.joined")
    with Hosted(app) as host:
        assert [deliver(f"{host.url}/{number}", joined).status for number in range(2)] == [200, 200]
        assert request("GET", f"{host.url}/0").status == 200
    assert [told.get(timeout=WITHIN), told.qsize()] == [0, 0]
    assert [record.deliveries for record in stored(url)] == [2]


def test_an_endpoint_in_a_thread_of_the_hosts_starts_and_stops_an_assistant(trigger: Trigger) -> None:
    app = FastAPI(lifespan=trigger.lifespan)

    @app.post("/start")
    def start() -> bool:
        return asyncio.run(trigger.start_assistant("https://acme.whereby.com/visit-1")).new

    @app.post("/stop")
    def stop() -> str | None:
        return asyncio.run(trigger.stop_assistant("https://acme.whereby.com/visit-1"))

    with Hosted(app) as served:
        answers = [request("POST", f"{served.url}/{verb}") for verb in ("start", "start", "stop", "stop")]
    assert [(answer.status, answer.body) for answer in answers] == [
        (200, b"true"),
        (200, b"false"),
        (200, b'"waiting"'),
        (200, b"null"),
    ]
