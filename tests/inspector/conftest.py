"""An inspector over a store of every kind that holds what a hostile sender could store there."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.place import Place
from tests.support.stores import KINDS
from whereby_trigger import Trigger
from whereby_trigger.inspector import Inspector
from whereby_trigger.receive import bind
from whereby_trigger.receive.server import Server
from whereby_trigger.store import Arrival, Count, Decision, RoomRequest, RoomState, RunOutcome, State, Store
from whereby_trigger.store.records import RoomMove, RunReport

LOCAL = "http://127.0.0.1:8088"
SCRIPT = "<script>alert('x')</script>"
BIDI = "\u202etxt.exe"
ANSI = "\x1b[31mred"
NASTY_ROOM = f"acme.whereby.com/{SCRIPT}{BIDI}{ANSI}"
ROOM = "acme.whereby.com/visit-1"
PRIVATE = ("Ada Lovelace", "crm-4711", "person-77", "participant-9")
TOKEN = "a-token-of-enough-characters"

Fill = Callable[..., Awaitable[str]]
Client = Callable[..., httpx.AsyncClient]


def body(id: str, type: str, humans: int, **more: Any) -> bytes:
    name, metadata, external, participant = PRIVATE
    data = {
        "roomName": "/visit-1",
        "subdomain": "acme",
        "displayName": name,
        "metadata": metadata,
        "externalId": external,
        "participantId": participant,
        "newField": name,
        "numClients": humans,
        "numClientsByRoleName": {"visitor": humans},
    }
    return json.dumps({"id": id, "type": type, "apiVersion": "1.0", "data": data | more}).encode()


async def deliver(
    store: Store,
    id: str,
    *,
    at: float,
    room: str | None = ROOM,
    type: str = "room.client.joined",
    state: State = State.SKIPPED,
    reason: str = "predicate people returned False",
    errors: tuple[str, ...] = (),
    humans: int = 1,
    content: bytes | None = None,
) -> None:
    """Store a webhook, and decide it unless its state is pending."""
    count = None if room is None else Count(room, humans, 0, at, None)
    stored = body(id, type, humans) if content is None else content
    added = await store.add(Arrival(id, type, room, stored, at, count=count))
    if state is not State.PENDING:
        assert await store.decide(Decision(added.seq, id, state, reason, 1, at + 0.1, errors))


async def run_in(store: Store, room: str, webhook: str, at: float) -> None:
    """Record two runs of an assistant: one failed and quoted a person, one is live."""
    await store.request(RoomRequest(room, f"https://{room}", webhook, None, at))
    (taken,) = await store.take(1)
    assert await store.move(RoomMove(taken.id, RoomState.LIVE, "", pid=1))
    failed = RunReport(RunOutcome.FAILED, exception="ValueError", output=f"no room for {PRIVATE[0]}")
    assert await store.move(RoomMove(taken.id, RoomState.WAITING, f"raised {SCRIPT}", run=failed))
    (taken,) = await store.take(1)
    assert await store.move(RoomMove(taken.id, RoomState.LIVE, "", pid=2))


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with KINDS[request.param](tmp_path) as place:
        yield place


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place.replica()
    await store.open(lambda: None)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Create clients of inspectors; each inspector is closed after the test."""
    async with AsyncExitStack() as made:

        def make(
            app: Trigger | Inspector, base: str = LOCAL, *, peer: str = "127.0.0.1", **headers: str
        ) -> httpx.AsyncClient:
            inspector = app.inspector if isinstance(app, Trigger) else app
            made.push_async_callback(inspector.close)
            transport = httpx.ASGITransport(inspector, client=(peer, 1234))
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            client = httpx.AsyncClient(transport=transport, base_url=base, headers=named)
            made.push_async_callback(client.aclose)
            return client

        yield make


@asynccontextmanager
async def served(trigger: Trigger) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a trigger's inspector over HTTP, and yield a client of it."""
    server = Server(trigger.inspector, bind("127.0.0.1", 0))
    await server.open()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
            yield client
    finally:
        await server.close(0)
        await trigger.inspector.close()


def form_token(page: str) -> str:
    """Return the anti-forgery token in a page's forms."""
    return page.partition('name="form_token" value="')[2].partition('"')[0]
