"""The answer to each delivery and each other request, over a real connection."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.http import Answer, ask, connected, delivery, request, signature
from tests.support.receiver import Receiver
from tests.support.until import AT_ONCE, eventually
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

JOINED = webhook("room.client.joined", room="/visit-1", id="a1", displayName="Robin Canary").raw
MAX_BODY = 256 * 1024


def padded(size: int) -> bytes:
    """Return a webhook that is exactly `size` bytes long."""
    body = json.loads(JOINED) | {"pad": ""}
    return json.dumps(body | {"pad": "x" * (size - len(json.dumps(body)))}).encode()


async def answered(receiver: Receiver, data: bytes) -> Answer:
    answer = await ask(receiver.port, data)
    assert answer is not None
    assert answer.body == b""
    return answer


async def status(receiver: Receiver, data: bytes) -> int:
    return (await answered(receiver, data)).status


async def test_a_delivery_is_answered_200_with_nothing_in_it_and_is_stored(receiver: Receiver) -> None:
    answer = await answered(receiver, delivery(JOINED))
    assert answer == Answer(200, {"content-length": "0"}, b"")
    (record,) = await receiver.records()
    assert (record.id, record.body, record.deliveries) == ("a1", JOINED, 1)


async def test_a_duplicate_is_answered_200_and_stored_once(receiver: Receiver) -> None:
    for _ in range(3):
        assert await status(receiver, delivery(JOINED)) == 200
    (record,) = await receiver.records()
    assert record.deliveries == 3


async def test_a_delivery_is_stored_before_it_is_answered_and_decided_after(receiver: Receiver) -> None:
    await answered(receiver, delivery(JOINED))
    await eventually(lambda: receiver_has(receiver, State.FIRED))


async def test_a_filter_of_the_log_that_raises_costs_no_delivery_its_answer_and_is_told_of(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    class Redacting(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.msg = re.sub("Robin", "***", record.msg)
            return True

    handler = logging.StreamHandler()
    handler.addFilter(Redacting())
    log = logging.getLogger("whereby_trigger.deliveries")
    caplog.set_level(logging.INFO, log.name)
    log.addHandler(handler)
    try:
        assert await status(receiver, delivery(JOINED)) == 200
        await eventually(lambda: receiver.running.dispatcher.idle)
        assert await status(receiver, delivery(JOINED)) == 200
        assert await status(receiver, request("POST", "/", [], JOINED)) == 401
        assert await status(receiver, delivery(JOINED, path="/elsewhere")) == 404
    finally:
        log.removeHandler(handler)
    assert capsys.readouterr().err.count("expected string or bytes-like object, got 'DeliveryLine'") == 4


async def test_who_only_looks_is_answered_200(receiver: Receiver) -> None:
    for method in ("GET", "HEAD"):
        for path in ("/", "/?a=b", "/livez", "/readyz", "/livez?x"):
            assert await status(receiver, request(method, path)) == 200, (method, path)


async def test_another_method_is_answered_405(receiver: Receiver) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
        answer = await answered(receiver, request(method, "/"))
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST"), method


async def test_nothing_is_delivered_to_a_probe(receiver: Receiver) -> None:
    for path in ("/livez", "/readyz"):
        answer = await answered(receiver, delivery(JOINED, path=path))
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert await receiver.records() == []


ELSEWHERE = ("/x", "//", "/x/livez", "/livez/", "/favicon.ico", "/.env", "/%2e%2e/", "/;", "/%00", "/%ff", "/livez%00")


async def test_another_path_is_answered_404(receiver: Receiver) -> None:
    for method in ("GET", "HEAD", "POST", "PUT"):
        for path in ELSEWHERE:
            data = request(method, path, [signature(JOINED)], JOINED)
            assert await status(receiver, data) == 404, (method, path)
    assert await receiver.records() == []


def ours(log: Callable[[], str]) -> str:
    """Return what we logged: pytest turns on uvicorn's log of requests."""
    return "\n".join(line for line in log().splitlines() if "whereby_trigger" in line)


async def test_a_delivery_to_another_path_is_logged_with_both_paths_and_nothing_else_of_it(
    tmp_path: Path, log: Callable[[], str]
) -> None:
    async with Receiver(tmp_path, path="/hooks/ü") as receiver:
        assert await status(receiver, delivery(JOINED, path="/hook%0As?token=canary")) == 404
        assert await status(receiver, delivery(JOINED, path="/livez")) == 405
        assert await status(receiver, delivery(JOINED, path="/" + "x" * 5000)) == 404
    logged = ours(log)
    assert "deliveries are taken at /hooks/%C3%BC, not at /hook%0As" in logged
    assert "deliveries are taken at /hooks/%C3%BC, not at /livez" in logged
    assert "x" * 300 not in logged
    assert "canary" not in logged.lower()


async def test_who_only_looks_at_another_path_is_not_logged(receiver: Receiver, log: Callable[[], str]) -> None:
    for method in ("GET", "HEAD", "PUT"):
        assert await status(receiver, request(method, "/favicon.ico")) == 404
    assert "favicon" not in ours(log)


async def test_a_path_of_ones_own_is_the_only_one(tmp_path: Path) -> None:
    async with Receiver(tmp_path, path="/hooks/3f9a x") as receiver:
        assert await status(receiver, delivery(JOINED, path="/hooks/3f9a%20x")) == 200
        assert await status(receiver, delivery(JOINED, path="/hooks/3f9a%20x?y")) == 200
        assert await status(receiver, delivery(JOINED, path="/")) == 404
        assert await status(receiver, delivery(JOINED, path="/hooks/3f9a%20x/")) == 404
        assert await status(receiver, request("GET", "/hooks/3f9a%20x/livez")) == 404
        assert await status(receiver, request("GET", "/readyz")) == 200


async def test_without_a_right_signature_a_delivery_is_answered_401_and_not_stored(receiver: Receiver) -> None:
    forgeries = {
        "none": request("POST", "/", [], JOINED),
        "two": request("POST", "/", [signature(JOINED), signature(JOINED)], JOINED),
        "empty": request("POST", "/", [("Whereby-Signature", "")], JOINED),
        "half": request("POST", "/", [("Whereby-Signature", "t=1")], JOINED),
        "long": request("POST", "/", [("Whereby-Signature", "t=1,v1=" + "x" * 2000)], JOINED),
        "forged": delivery(JOINED, secret="another"),
        "stale": delivery(JOINED, age=301),
        "from the future": delivery(JOINED, age=-302),
        "another body's": request("POST", "/", [signature(b"{}")], JOINED),
        "of no body": request("POST", "/", [("Whereby-Signature", "")]),
    }
    for name, data in forgeries.items():
        assert await status(receiver, data) == 401, name
    assert await receiver.records() == []


async def test_what_is_authentic_but_undecodable_is_answered_200_and_its_bytes_are_kept(receiver: Receiver) -> None:
    odd = b'\xff\x00{"id": "a1"'
    for _ in range(2):
        assert await status(receiver, delivery(odd)) == 200
    (record,) = await receiver.records()
    assert (record.state, record.body, record.deliveries) == (State.QUARANTINED, odd, 2)
    assert record.reason == "the body is not UTF-8"


async def test_a_body_of_the_greatest_length_is_taken_and_one_byte_more_is_not(receiver: Receiver) -> None:
    assert await status(receiver, delivery(padded(MAX_BODY))) == 200
    assert await status(receiver, delivery(padded(MAX_BODY + 1))) == 413
    (record,) = await receiver.records()
    assert len(record.body) == MAX_BODY


async def test_too_long_a_body_is_answered_413_before_any_of_it_is_sent(receiver: Receiver) -> None:
    for length in ("262145", "104857600", "9" * 18, str(2**64 - 1)):
        async with connected(receiver.port) as connection:
            answer = await connection.ask(request("POST", "/", [signature(JOINED), ("Content-Length", length)]))
            assert answer is not None, length
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert await connection.closed() < AT_ONCE


async def test_a_body_without_a_length_is_taken_in_chunks(receiver: Receiver) -> None:
    async with connected(receiver.port) as connection:
        await connection.send(request("POST", "/", [signature(JOINED), ("Transfer-Encoding", "chunked")]))
        for start in range(0, len(JOINED), 100):
            chunk = JOINED[start : start + 100]
            await connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        answer = await connection.ask(b"0\r\n\r\n")
    assert answer is not None
    assert answer.status == 200
    assert (await receiver.records())[0].body == JOINED


async def test_an_endless_body_in_chunks_is_answered_413_and_closed(receiver: Receiver) -> None:
    chunk = b"x" * 65_536
    async with connected(receiver.port) as connection:
        await connection.send(request("POST", "/", [signature(JOINED), ("Transfer-Encoding", "chunked")]))
        for _ in range(5):
            await connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        answer = await connection.answer()
        assert answer is not None
        assert answer.status == 413
        assert await connection.closed() < AT_ONCE
    assert await receiver.records() == []


async def test_who_hangs_up_in_the_middle_gets_nothing_stored(receiver: Receiver) -> None:
    async with connected(receiver.port) as connection:
        await connection.send(delivery(JOINED)[:-10])
    assert await status(receiver, request()) == 200
    assert await receiver.records() == []


INCOMPLETE = {
    "nothing": b"",
    "half a line": b"POST / HT",
    "half the headers": b"POST / HTTP/1.1\r\nHost: localhost\r\nWhereby-Sig",
    "half a body": request("POST", "/", [signature(JOINED)], JOINED)[:-10],
    "half a chunk": request("POST", "/", [("Transfer-Encoding", "chunked")]) + b"ff\r\nabc",
    "half a body for another path": request("POST", "/x", [], JOINED)[:-10],
    "a request and half another": request("GET", "/") + b"POST / HT",
}


async def test_a_request_that_stays_incomplete_is_closed(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.receive.asgi.READ_WITHIN", 0.2)
    monkeypatch.setattr("whereby_trigger.receive.server.REQUEST_WITHIN", 1.5)

    async def send(data: bytes) -> float:
        started = time.monotonic()
        async with connected(receiver.port) as connection:
            answer = await connection.ask(data)
            assert answer is None or answer.status in (200, 404, 408)
            await connection.closed()
        return time.monotonic() - started

    waits = await asyncio.gather(*map(send, INCOMPLETE.values()))
    assert max(waits) < 1.5 + AT_ONCE, dict(zip(INCOMPLETE, waits, strict=True))
    assert await receiver.records() == []


async def test_a_sender_of_a_byte_now_and_then_is_closed_all_the_same(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.receive.server.REQUEST_WITHIN", 1.5)
    started = time.monotonic()
    async with connected(receiver.port) as connection:

        async def trickle() -> bool:
            await connection.send(b"x")
            return connection.hung_up

        await connection.send(b"POST / HTTP/1.1\r\nX: ")
        await eventually(trickle, within=1.5 + AT_ONCE)
    assert time.monotonic() - started > 0.5


def test_the_limits_are_those_of_the_docs() -> None:
    from whereby_trigger.receive import connections, server
    from whereby_trigger.receive.asgi import READ_WITHIN
    from whereby_trigger.receive.receiver import ANSWER_WITHIN, MAX_ARRIVING, MAX_BYTES, MAX_REQUESTS

    assert (ANSWER_WITHIN, READ_WITHIN, server.REQUEST_WITHIN) == (4.5, 10, 10)
    assert (MAX_REQUESTS, MAX_BYTES) == (2000, 64 * 1024 * 1024)
    assert (MAX_ARRIVING, server.TAKEN_WITHIN, connections.MAX_CONNECTIONS) == (16 * 1024 * 1024, 10, 2048)


async def receiver_has(receiver: Receiver, state: State) -> bool:
    return [record.state for record in await receiver.records()] == [state]
