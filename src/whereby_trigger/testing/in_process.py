"""A trigger in the test's own process: real deliveries, a real store on a temporary file, no port."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, cast

from msgspec import Struct

from whereby_trigger.errors import DecodeError, DeliveryError
from whereby_trigger.receive import Endpoint
from whereby_trigger.replica import Replica
from whereby_trigger.store import Decision, Query, Record, State, Store
from whereby_trigger.testing.meeting import LiveMeeting, Meeting
from whereby_trigger.webhook import RoomIdentity, RoomWebhook, Webhook, WebhookBase, decode, identify, sign

SECRET = "a secret for tests"  # noqa: S105
LEAVE_WITHIN = 1.0
"""Seconds that an assistant has to leave by itself at the end of a test."""

Opened = tuple[Replica, Endpoint, Store]


class AssistantStart(Struct, frozen=True):
    """Describe an assistant that starts, or would outside a test: its room's URL and the webhook that fired."""

    room_url: str
    trigger_webhook: RoomWebhook


class TestingTrigger:
    """Deliver webhooks to a trigger and see what it decides; made by `trigger.testing()`.

    >>> async with trigger.testing() as t:
    ...     decision = await t.deliver(webhook("room.client.joined", room="/visit-1"))
    ...     assert decision.state == "fired"

    `assistants` lists the assistants that would have started, oldest first: one for each room and meeting.
    """

    __test__ = False

    def __init__(self, wire: Callable[[dict[str, Any]], Opened], release: Callable[[Store], None]) -> None:
        self._wire = wire
        self._release = release
        self.assistants: list[AssistantStart] = []
        self._told: dict[str, asyncio.Future[Decision]] = {}
        self._decided: dict[str, asyncio.Future[Decision]] = {}

    async def __aenter__(self) -> "TestingTrigger":
        # Each block begins with an empty store.
        self.assistants, self._told, self._decided = [], {}, {}
        self._folder = tempfile.TemporaryDirectory(prefix="whereby-trigger-")
        store = f"sqlite:///{self._folder.name}/test.db"
        overrides = {"store": store, "spill": "off", "secret": SECRET, "path": "/"}
        self._running, self._endpoint, self._store = self._wire(overrides)
        self._running.dispatcher.observe(self._note)
        self._running.claims.observe(self._note_claim)
        try:
            await self._running.open()
        except BaseException:
            self._release(self._store)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            hurry = asyncio.Event()
            timer = asyncio.get_running_loop().call_later(LEAVE_WITHIN, hurry.set)
            await self._running.drain(0, hurry)
            timer.cancel()
            await self._running.close(0)
        finally:
            self._release(self._store)
            self._folder.cleanup()

    async def deliver(self, webhook: WebhookBase | bytes) -> Decision:
        """Deliver a webhook, signed as Whereby signs, and wait for its decision; a body of your own may be bytes.

        A webhook that is put on hold returns as `held`: `decided` waits for what becomes of it. A duplicate gives the
        decision on the first. Raises DeliveryError where the answer is not 200.
        """
        body = webhook if isinstance(webhook, bytes) else webhook.raw
        status = await self.post(body, sign(SECRET, body, int(time.time())))
        if status != 200:
            raise DeliveryError(f"the delivery was answered {status}, not 200")
        try:
            id = decode(body).id
        except DecodeError:
            return await self._quarantine(identify(body))
        return await _of(self._told, id)

    async def decided(self, webhook: WebhookBase) -> Decision:
        """Wait until a webhook that was delivered is decided, and no longer held."""
        return await _of(self._decided, webhook.id)

    def meeting(self, room: str = "/visit-1", **options: Any) -> LiveMeeting:
        """Begin a meeting, whose webhooks are delivered as they happen; `options` are those of Meeting.

        >>> meeting = t.meeting("/visit-1")
        >>> decision = await meeting.join("host")
        """
        return LiveMeeting(Meeting(room, **options), self.deliver)

    async def post(self, body: bytes, signature: str | None = None) -> int:
        """Post a body with a signature header of your own, or none; return the answer's status."""
        headers = [] if signature is None else [(b"whereby-signature", signature.encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        request = {"type": "http.request", "body": body, "more_body": False}
        sent: list[Any] = []

        async def receive() -> Any:
            return request

        async def send(message: Any) -> None:
            sent.append(message)

        await self._endpoint(scope, receive, send)
        return int(sent[0]["status"])

    async def stored(self) -> list[Record]:
        """Read what the store holds, newest first."""
        return await self._store.find(Query())

    async def _quarantine(self, id: str) -> Decision:
        (record,) = await self._store.find(Query(ids=(id,)))
        return Decision(0, id, record.state, record.reason, record.attempts, record.received_at)

    def _note(self, decision: Decision) -> None:
        for noted in (self._told,) if decision.state is State.HELD else (self._told, self._decided):
            if _of(noted, decision.id).done():
                del noted[decision.id]
            _of(noted, decision.id).set_result(decision)

    def _note_claim(self, room: RoomIdentity, webhook: Webhook) -> None:
        # Predicates are registered for webhooks that name a room, and for no others.
        self.assistants.append(AssistantStart(room.url, cast(RoomWebhook, webhook)))


def _of(noted: dict[str, asyncio.Future[Decision]], id: str) -> "asyncio.Future[Decision]":
    return noted.setdefault(id, asyncio.get_running_loop().create_future())
