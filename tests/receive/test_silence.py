"""What a log never holds: bodies, names, metadata, exceptions' texts, secrets, tracebacks."""

import asyncio
import io
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.http import SECRET, ask, delivery, request, signature
from tests.support.receiver import Receiver
from tests.support.until import eventually
from whereby_trigger import Trigger, Webhook, logs
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

CANARY = "Robin Canary"


def telling(id: str, type: str = "room.client.joined") -> bytes:
    """Return a webhook that holds a person's name in every place where Whereby may put one."""
    return webhook(
        type, id=id, room="/visit-1", displayName=CANARY, metadata=f"of {CANARY}", externalId=CANARY, data={"x": CANARY}
    ).raw


class Careless(Trigger):
    """A trigger whose every function raises with the confidential values that it got."""

    def __init__(self) -> None:
        super().__init__()
        self.when("room.client.joined")(self.fire)
        self.when("room.client.left")(self.fail)
        self.when("room.client.knocked")(self.say)  # type: ignore[type-var]
        for listener in (self.raises, self.raises_later, self.awaits_what_raises):
            self.on("trigger_event_success", listener)

    def fire(self) -> bool:
        return True

    def fail(self, webhook: Webhook) -> bool:
        raise ValueError(f"not {webhook.raw.decode()}")

    def say(self, webhook: Webhook) -> str:
        return webhook.raw.decode()

    def raises(self) -> None:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise RuntimeError(f"could not greet {CANARY}") from error

    async def raises_later(self) -> None:
        await asyncio.sleep(0)
        raise SystemExit(f"bye {CANARY}")

    async def raises_in_a_task(self) -> None:
        raise LookupError(f"no {CANARY}")

    async def awaits_what_raises(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.raises_in_a_task())


async def test_no_log_line_holds_what_was_told_in_confidence(
    tmp_path: Path, log: Callable[[], str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("whereby_trigger.decide.predicates.BACKOFF", (0.0, 0.0))
    odd = f'{{"id": "odd", "displayName": "{CANARY}"'.encode()
    bodies = [
        telling("joined"),
        telling("joined"),
        telling("left", "room.client.left"),
        telling("knocked", "room.client.knocked"),
        telling("unhandled", "room.client.knockCancelled"),
        b'{"id":"waved","type":"room.client.waved","data":{"displayName":"' + CANARY.encode() + b'"}}',
        odd,
    ]
    others = [
        request("POST", "/", [("X-Name", CANARY)], telling("unsigned")),
        request("POST", "/", [("Whereby-Signature", f"t=1,v1={CANARY}")], telling("malformed")),
        delivery(telling("forged"), secret=CANARY),
        delivery(telling("stale"), age=1000),
        request("POST", "/", [signature(b""), ("Content-Length", "300000"), ("X-Name", CANARY)]),
        request("GET", f"/{CANARY.replace(' ', '')}"),
        b"GET /Robin Canary HTTP/1.1\r\n\r\n",
    ]
    async with Receiver(tmp_path, Careless()) as receiver:
        for data in [*map(delivery, bodies), *others]:
            assert await ask(receiver.port, data) is not None
        await eventually(lambda: are_decided(receiver))
        await eventually(lambda: has_errors(receiver, "joined", 3))
        records = {record.id: record for record in await receiver.records()}
    text = log()
    for id in ("joined", "left", "knocked"):
        assert id in text or records[id].type in text
    for told in (CANARY, CANARY.replace(" ", ""), SECRET, "Traceback", "greet"):
        assert told not in text
    assert all(CANARY not in record.reason for record in records.values())
    assert CANARY in "".join(records["joined"].errors)
    assert CANARY in "".join(records["left"].errors)


async def are_decided(receiver: Receiver) -> bool:
    return all(record.state is not State.PENDING for record in await receiver.records())


async def has_errors(receiver: Receiver, id: str, count: int) -> bool:
    return any(record.id == id and len(record.errors) == count for record in await receiver.records())


@pytest.mark.parametrize("formatter", [logs.PlainFormatter(), logs.PlainFormatter(coloured=True), logs.JsonFormatter()])
def test_an_exception_that_is_logged_all_the_same_shows_neither_its_text_nor_where(
    formatter: logging.Formatter,
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    try:
        raise ValueError(CANARY)
    except ValueError:
        logger.exception("Exception in ASGI application")
    finally:
        logger.removeHandler(handler)
    assert CANARY not in stream.getvalue()
    assert "Traceback" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
