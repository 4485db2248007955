"""A user's program in all the shapes that the public API accepts: checked as it is, and run."""

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from whereby_trigger import (
    ASSISTANT_EVENT_ENDED,
    ASSISTANT_EVENT_FAILED,
    ASSISTANT_EVENT_STARTED,
    TRIGGER_EVENT_SUCCESS,
    AssistantEvent,
    Hold,
    Presence,
    RecordingFinished,
    RoomClientJoined,
    RoomClientLeft,
    RoomSessionEnded,
    RoomSessionStarted,
    Session,
    TranscriptionFinished,
    Trigger,
    TriggerSuccess,
    Webhook,
    WebhookTriggers,
    is_human,
)
from whereby_trigger.testing import Decision, TestingTrigger, sign, webhook

said: list[str] = []


def told(prefix: str, webhook: RoomClientLeft) -> None:
    said.append(prefix + webhook.data.room_name)


class Visits:
    """Predicates with state, as methods and as a callable object."""

    def __init__(self) -> None:
        self.open = {"/visit-1"}

    def wanted(self, webhook: RoomSessionStarted) -> bool:
        return webhook.data.room_name in self.open

    def __call__(self, webhook: RoomSessionEnded) -> bool:
        return webhook.data.room_session_id is None


def in_room(prefix: str, webhook: RoomClientLeft) -> bool:
    return webhook.data.room_name.startswith(prefix)


async def first(webhook: RoomClientJoined) -> bool:
    return is_human(webhook) and webhook.data.num_clients == 1


visits = Visits()
by_dict = Trigger(
    webhook_triggers={
        "room.client.joined": first,
        "room.client.left": functools.partial(in_room, "/visit-"),
        "room.client.knocked": lambda webhook: webhook.data.display_name != "",
        "room.session.started": visits.wanted,
        "room.session.ended": visits,
        "assistant.requested": lambda: True,
    },
    port=0,
    secret=["the new one", "the old one"],
    tolerance=timedelta(minutes=1),
    retention=86400,
)

made_before: WebhookTriggers = {"room.client.joined": is_human, "room.client.left": lambda webhook: is_human(webhook)}
of_a_variable = Trigger(webhook_triggers=made_before, secret="a secret")


by_decorator = Trigger(secret="a secret")


def two_people(webhook: RoomClientJoined, presence: Presence) -> bool:
    return presence.humans is not None and presence.humans >= 2


async def somebody(webhook: Webhook, presence: Presence) -> bool:
    return bool(presence.humans) and presence.humans_since is not None


class Crowds:
    """Predicates with state that ask who is there."""

    def wanted(self, webhook: RoomSessionStarted, presence: Presence) -> bool:
        return presence.bots == 0


def in_room_with(prefix: str, webhook: RoomClientLeft, presence: Presence) -> bool:
    return in_room(prefix, webhook) and presence.humans == 1


by_presence = Trigger(
    webhook_triggers={
        "room.client.joined": two_people,
        "room.client.left": functools.partial(in_room_with, "/visit-"),
        "room.client.knocked": lambda webhook, presence: presence.humans == 2,
        "room.client.knockCancelled": somebody,
        "room.session.started": Crowds().wanted,
    },
    secret="a secret",
)
by_presence_too = Trigger(secret="a secret")
by_presence_too.when("room.client.joined")(two_people)
by_presence_too.when("room.client.knocked")(lambda webhook, presence: presence.humans == 2)
by_presence_too.when("room.client.left", "room.session.ended")(somebody)

holding = Trigger(
    webhook_triggers={
        "room.client.joined": Hold(two_people, 30),
        "room.client.left": Hold(lambda webhook: webhook.data.display_name != "", 0.5),
        "room.client.knocked": Hold(lambda webhook, presence: presence.humans == 2, 5),
        "room.session.started": Hold(visits.wanted, 30),
        "room.session.ended": Hold(visits, seconds=1),
        "assistant.requested": Hold(lambda: True, 30),
    }
)
stays: Hold[RoomClientJoined] = Hold(first, 30)
also_holding: WebhookTriggers = {"room.client.joined": stays}
holding_by_decorator = Trigger()


@holding_by_decorator.when("room.client.joined", hold=30)
def stays_with_two(webhook: RoomClientJoined, presence: Presence) -> bool:
    return two_people(webhook, presence)


@holding_by_decorator.when("room.client.left", "room.session.started", hold=0.5)
async def settles(webhook: Webhook) -> bool:
    return is_human(webhook)


@by_decorator.when("room.session.started")
async def started(webhook: RoomSessionStarted) -> bool:
    return webhook.data.room_name.startswith("/visit-")


@by_decorator.when("assistant.requested")
def always() -> bool:
    return True


@by_decorator.when("room.client.joined")
@by_decorator.when("room.client.left")
def a_host(webhook: RoomClientJoined | RoomClientLeft) -> bool:
    return webhook.data.role_name == "host"


@by_decorator.when("room.client.knocked", "room.client.knockCancelled")
def anybody(webhook: Webhook) -> bool:
    return is_human(webhook)


by_decorator.when("room.session.ended")(visits)


@by_decorator.on(TRIGGER_EVENT_SUCCESS)
async def announce(success: TriggerSuccess) -> None:
    said.append(f"{success.room_url.upper()} {success.trigger_webhook.data.room_name} {success.attempt + 1}")


@by_decorator.once(TRIGGER_EVENT_SUCCESS)
def first_success() -> None:
    said.append("the first")


@by_decorator.on(ASSISTANT_EVENT_FAILED)
@by_decorator.once(ASSISTANT_EVENT_ENDED)
async def page(event: AssistantEvent) -> None:
    said.append(f"{event.room_url.upper()} {event.state.value} {event.reason} {event.attempt + 1}")


@by_decorator.on(ASSISTANT_EVENT_STARTED)
def anything_started() -> None:
    said.append("an assistant")


by_decorator.on(ASSISTANT_EVENT_STARTED, lambda event: said.append(event.webhook_id or "by hand"))


@by_decorator.on("transcription.finished")
async def fetch(webhook: TranscriptionFinished) -> str:
    return webhook.data.filename


@by_decorator.on("recording.finished")
@by_decorator.on("transcription.finished")
def file(webhook: RecordingFinished | TranscriptionFinished) -> str:
    return webhook.data.filename


@by_decorator.on("an event of my own")
def mine(payload: dict[str, int]) -> None:
    said.append(str(payload))


by_decorator.on(TRIGGER_EVENT_SUCCESS, announce)
by_decorator.on(TRIGGER_EVENT_SUCCESS, lambda success: said.append(success.room_url.upper()))
by_decorator.on("room.client.left", lambda: said.append("somebody left"))
by_decorator.on("room.client.left", functools.partial(told, "left:"))
for number in range(2):
    by_decorator.on("room.client.knocked", lambda webhook, number=number: said.append(f"{number} {webhook.id}"))
by_decorator.on("an event of my own", lambda payload: said.append(str(payload)))


class Scribe:
    """An assistant as an object."""

    async def __call__(self, session: Session) -> int:
        return session.attempt

    async def attend(self, session: Session, greeting: str = "hello") -> str:
        return f"{greeting} {session.room_url}"


async def greet(greeting: str, session: Session) -> None:
    said.append(f"{greeting} {session.room_name}")


@Trigger().assistant
async def scribe(session: Session) -> None:
    async for heard in session.webhooks():
        said.append(heard.id)


@Trigger().assistant(bots=True)
async def anything(session: object) -> str:
    return "whatever comes"


@Trigger().assistant(leave_when_empty=timedelta(minutes=5), max_duration=None)
async def patient(session: Session) -> None:
    await session.ended


Trigger().assistant_command(["node", "assistant.mjs"], leave_when_empty=None, max_duration=3600)
Trigger().assistant(Scribe())
Trigger().assistant(Scribe().attend)
Trigger().assistant(functools.partial(greet, "hello"))


def name_of_file(webhook: Webhook) -> str | None:
    if webhook.type == "recording.finished":
        return webhook.data.filename
    if isinstance(webhook, TranscriptionFinished):
        return webhook.data.filename
    return None


def the_functions_are_what_they_were() -> str:
    answer: bool = always()
    name: str = file(RecordingFinished(id="1"))
    return f"{answer} {name} {started.__name__} {mine.__name__}"


@asynccontextmanager
async def both(app: FastAPI) -> AsyncIterator[None]:
    async with by_dict.lifespan(app), by_decorator.lifespan(app):
        yield


fastapi_app = FastAPI(lifespan=both)
fastapi_app.add_route("/first", by_dict.asgi)
fastapi_app.mount("/second", by_decorator.asgi)
starlette_app = Starlette(
    lifespan=of_a_variable.lifespan, routes=[Route("/whereby", of_a_variable.asgi), Mount("/m", of_a_variable.asgi)]
)


async def decided(t: TestingTrigger) -> Decision:
    signed = sign("a secret", b"{}", 1_700_000_000)
    assert await t.post(b"{}", signed) == 401
    for sent in (webhook("room.session.ended", room_session_id=None), webhook("recording.finished")):
        assert (await t.deliver(sent)).state in ("fired", "notified")
    return await t.deliver(webhook("room.client.joined", room="/visit-1", role_name="host"))


async def exercise() -> str:
    async with by_decorator.testing() as t:
        decision = await decided(t)
        urls: list[str] = [start.room_url for start in t.assistants]
    assert urls == []
    async with by_decorator.testing(assistants="run"):
        pass
    async with by_presence.testing() as t:
        alone = await t.deliver(webhook("room.client.joined", num_clients_by_role_name={"host": 1}))
        both = await t.deliver(webhook("room.client.joined", num_clients_by_role_name={"host": 2}))
    assert (alone.state, both.state) == ("skipped", "fired")
    heard: bool = await by_decorator.emit("an event of my own", {"a": 1})
    removed: bool = by_decorator.off(TRIGGER_EVENT_SUCCESS, announce)
    return f"{decision.state} {decision.reason} {heard} {removed} {len(by_decorator.listeners('room.client.left'))}"


if __name__ == "__main__":
    by_dict.start()
