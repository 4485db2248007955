"""Every refusal of a delivery is counted once, by a reason from a fixed list, and nothing of it is kept."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.http import ask, connected, delivery, request, signature
from tests.support.outage import AwayStore
from tests.support.receiver import HeldStore, Receiver
from tests.support.until import eventually
from whereby_trigger.store import RefusalReason
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

JOINED = webhook("room.client.joined", room="/visit-1", id="a1", displayName="Robin Canary").raw

SENT: dict[str, tuple[Callable[[], bytes], RefusalReason, str]] = {
    "unsigned": (lambda: request("POST", "/", body=JOINED), RefusalReason.NO_SIGNATURE, "/"),
    "forged": (lambda: delivery(JOINED, secret="another"), RefusalReason.WRONG_SIGNATURE, "/"),
    "stale": (lambda: delivery(JOINED, age=3600), RefusalReason.STALE_SIGNATURE, "/"),
    "ahead": (lambda: delivery(JOINED, age=-3600), RefusalReason.FUTURE_SIGNATURE, "/"),
    "no hex": (
        lambda: request("POST", "/", [("Whereby-Signature", "t=1,v1=x")], JOINED),
        RefusalReason.MALFORMED_SIGNATURE,
        "/",
    ),
    "two signatures": (
        lambda: request("POST", "/", [signature(JOINED), signature(JOINED)], JOINED),
        RefusalReason.MALFORMED_SIGNATURE,
        "/",
    ),
    "another path": (lambda: delivery(JOINED, path="/hook%C3%BC"), RefusalReason.WRONG_PATH, "/hookü"),
    "a probe's path": (lambda: delivery(JOINED, path="/readyz"), RefusalReason.WRONG_METHOD, "/readyz"),
    "another method": (lambda: request("PUT", "/", body=JOINED), RefusalReason.WRONG_METHOD, ""),
    "too large": (lambda: delivery(b"x" * 300_000), RefusalReason.TOO_LARGE, "/"),
    "too large in chunks": (
        lambda: request("POST", "/", [("Transfer-Encoding", "chunked")]) + b"493e0\r\n" + b"x" * 300_000,
        RefusalReason.TOO_LARGE,
        "/",
    ),
    "no HTTP": (lambda: b"hello\r\n\r\n", RefusalReason.INVALID_HTTP, ""),
    "a later HTTP": (lambda: b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", RefusalReason.INVALID_HTTP, ""),
    "many headers": (
        lambda: request("POST", "/", [(f"X-{n}", "y" * 50) for n in range(2000)], JOINED),
        RefusalReason.INVALID_HTTP,
        "",
    ),
}


@pytest.mark.parametrize("sent", SENT)
async def test_each_way_to_refuse_is_counted_once_with_its_path(receiver: Receiver, sent: str) -> None:
    data, reason, path = SENT[sent]
    answer = await ask(receiver.port, data())
    (refused,) = receiver.running.refusals.newest
    assert (refused.reason, refused.path, refused.count) == (reason, path, 1)
    assert answer is None or answer.status == refused.status == reason.status
    assert abs(refused.at - time.time()) < 60
    assert (refused.skew is not None) == (sent in ("stale", "ahead"))


async def test_what_was_let_in_or_only_looked_at_is_no_refusal(receiver: Receiver) -> None:
    for data in (
        delivery(JOINED),
        delivery(JOINED),
        request(),
        request("GET", "/favicon.ico"),
        request("GET", "/livez"),
    ):
        assert await ask(receiver.port, data) is not None
    assert not receiver.running.refusals.newest


async def test_an_endless_header_and_a_stalled_request_are_closed_and_counted(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.receive.server.REQUEST_WITHIN", 1.2)
    async with connected(receiver.port) as endless, connected(receiver.port) as stalled, connected(receiver.port):
        await stalled.send(delivery(JOINED)[:-10])
        await endless.send(b"GET /")
        while not endless.hung_up:
            await endless.send(b"x" * 20_000)
        await stalled.closed()
    reasons = [refused.reason for refused in receiver.running.refusals.newest]
    assert sorted(reasons) == [RefusalReason.HEADERS_TOO_LARGE, RefusalReason.STALLED]
    assert {refused.status for refused in receiver.running.refusals.newest} == {0}


async def test_connections_above_the_limit_are_counted_together(receiver: Receiver) -> None:
    receiver.server.connections.max_connections = 1
    async with connected(receiver.port) as first, connected(receiver.port) as second, connected(receiver.port) as third:
        closed = [asyncio.create_task(each.closed()) for each in (first, second, third)]
        await asyncio.wait(closed, return_when=asyncio.FIRST_COMPLETED)
        await eventually(lambda: sum(refused.count for refused in receiver.running.refusals.newest) == 2)
        for each in closed:
            each.cancel()
        await asyncio.gather(*closed, return_exceptions=True)
    assert {each.reason for each in receiver.running.refusals.newest} == {RefusalReason.TOO_MANY_CONNECTIONS}


async def test_a_store_that_is_slow_and_a_crowd_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.receive.receiver.ANSWER_WITHIN", 0.1)
    async with Receiver(tmp_path, store=HeldStore) as receiver:
        assert isinstance(receiver.store, HeldStore)
        answer = await ask(receiver.port, delivery(JOINED))
        assert answer is not None
        assert answer.status == 503
        monkeypatch.setattr(receiver.edge.in_flight, "full", True)
        assert await ask(receiver.port, delivery(JOINED)) is not None
        reasons = [refused.reason for refused in receiver.running.refusals.newest]
        assert reasons == [RefusalReason.STORE_SLOW, RefusalReason.CROWDED]
        receiver.store.go.set()


async def test_a_store_that_is_away_is_the_reason_of_a_503(tmp_path: Path) -> None:
    async with Receiver(tmp_path, store=AwayStore) as receiver:
        assert isinstance(receiver.store, AwayStore)
        receiver.store.go_down()
        assert await ask(receiver.port, delivery(JOINED)) is not None
        receiver.store.come_back()
        assert [refused.reason for refused in receiver.running.refusals.newest] == [RefusalReason.STORE_FAILED]


async def test_without_a_secret_what_comes_from_elsewhere_and_what_is_no_webhook_is_counted(tmp_path: Path) -> None:
    async with Receiver(tmp_path, secret=None) as receiver:
        assert await ask(receiver.port, request("POST", "/", [("Via", "x")], JOINED)) is not None
        assert await ask(receiver.port, request("POST", "/", body=b"{")) is not None
        reasons = [refused.reason for refused in receiver.running.refusals.newest]
    assert reasons == [RefusalReason.NOT_LOCAL, RefusalReason.NO_WEBHOOK]


async def test_what_was_refused_is_in_the_store_after_a_drain(tmp_path: Path) -> None:
    began = time.time()
    async with Receiver(tmp_path) as receiver:
        for data in (
            delivery(JOINED, secret="another"),
            delivery(JOINED, path="/x"),
            request("POST", "/", body=JOINED),
        ):
            assert await ask(receiver.port, data) is not None
        replica = receiver.store.replica
    store = store_for(receiver.settings.store)
    await store.open_readonly()
    stored = await store.refusals(began, time.time())
    await store.close()
    assert {(each.reason, each.status, each.replica) for each in stored} == {
        ("wrong signature", 401, replica),
        ("wrong path", 404, replica),
        ("no signature", 401, replica),
    }
    assert sum(each.count for each in stored) == 3
    assert b"Robin Canary" not in b"".join(path.read_bytes() for path in tmp_path.glob("webhooks.db*"))


async def test_requests_that_are_none_have_one_line_a_second_however_many_come(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.deliveries.monotonic", lambda: 100.0)
    for _ in range(5):
        await ask(receiver.port, b"hello\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records if "invalid HTTP" in record.getMessage()]
    assert len(lines) == 1
    assert sum(refused.count for refused in receiver.running.refusals.newest) == 5


def test_each_way_in_which_a_signature_is_wrong_has_its_own_reason() -> None:
    refused = {reason for _, reason, _ in SENT.values() if reason.status == 401}
    assert refused == {reason for reason in RefusalReason if reason.status == 401} - {RefusalReason.NOT_LOCAL}
