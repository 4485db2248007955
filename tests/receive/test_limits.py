"""A slow or unavailable store: deliveries wait for it, within bounds, and get 503 beyond."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.asgi import Upload, call, post
from tests.support.http import ask, delivery, request
from tests.support.receiver import HeldStore, PingedStore, Receiver
from tests.support.until import AT_ONCE, eventually
from whereby_trigger import Trigger
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
BODY = webhook("room.client.joined", room="/visit-1", id="a1").raw


def numbered(n: int) -> bytes:
    return b'{"id":"%d","type":"room.client.joined"}' % n


@pytest.fixture
async def held(tmp_path: Path, trigger: Trigger) -> AsyncIterator[tuple[Receiver, HeldStore]]:
    async with Receiver(tmp_path, trigger, HeldStore) as receiver:
        assert isinstance(receiver.store, HeldStore)
        yield receiver, receiver.store
        receiver.store.go.set()


async def test_a_delivery_waits_for_a_slow_store_and_then_hears_503(
    held: tuple[Receiver, HeldStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, _ = held
    monkeypatch.setattr("whereby_trigger.receive.receiver.ANSWER_WITHIN", 0.3)
    started = time.monotonic()
    answer = await ask(receiver.port, delivery(BODY))
    assert answer is not None
    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "5", b"")
    assert 0.3 <= time.monotonic() - started < AT_ONCE


async def test_the_wait_counts_from_the_first_byte(
    held: tuple[Receiver, HeldStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, store = held
    monkeypatch.setattr("whereby_trigger.receive.receiver.ANSWER_WITHIN", 0)
    started = time.monotonic()
    assert (await post(receiver.edge, BODY)).status == 503
    assert time.monotonic() - started < AT_ONCE
    assert store.asked == 1


async def test_what_was_answered_503_and_stored_all_the_same_is_decided_once(
    held: tuple[Receiver, HeldStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, store = held
    monkeypatch.setattr("whereby_trigger.receive.receiver.ANSWER_WITHIN", 0.1)
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 0.1)
    assert (await post(receiver.edge, BODY)).status == 503
    store.go.set()
    assert (await post(receiver.edge, BODY)).status == 200
    await eventually(lambda: is_decided(receiver))
    (record,) = await receiver.records()
    assert (record.state, record.deliveries) == (State.FIRED, 2)


async def test_a_store_that_another_program_locks_is_answered_503_and_recovers(
    tmp_path: Path, trigger: Trigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.store.sqlite.connection.BUSY_TIMEOUT", 0.2)
    async with Receiver(tmp_path, trigger) as receiver:
        other = sqlite3.connect(tmp_path / "webhooks.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            answer = await ask(receiver.port, delivery(BODY))
            assert answer is not None
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        ready = await ask(receiver.port, request("GET", "/readyz"))
        alive = await ask(receiver.port, request("GET", "/livez"))
        other.execute("ROLLBACK")
        other.close()
        assert ready is not None
        assert alive is not None
        assert (ready.status, alive.status) == (503, 200)
        assert (await post(receiver.edge, BODY)).status == 200
        ready = await ask(receiver.port, request("GET", "/readyz"))
        assert ready is not None
        assert ready.status == 200
        assert len(await receiver.records()) == 1


async def test_however_many_ask_if_it_is_ready_the_store_takes_one_write_at_a_time(tmp_path: Path) -> None:
    async with Receiver(tmp_path, store=PingedStore) as receiver:
        assert isinstance(receiver.store, PingedStore)
        store = receiver.store

        async def ready() -> int:
            answer = await call(receiver.edge, Upload(), method="GET", path="/readyz")
            return 0 if answer is None else answer.status

        asking = [asyncio.create_task(ready()) for _ in range(100)]
        await eventually(lambda: store.pings > 0)
        asking[0].cancel()
        store.go.set()
        assert await asyncio.gather(*asking[1:]) == [200] * 99
        assert store.pings == 1
        assert await ready() == 200
        assert store.pings == 2


async def test_2000_deliveries_may_wait_and_one_more_hears_503_at_once(held: tuple[Receiver, HeldStore]) -> None:
    receiver, store = held
    waiting = [asyncio.create_task(post(receiver.edge, numbered(n))) for n in range(2000)]
    await eventually(lambda: store.asked == 2000)
    started = time.monotonic()
    answer = await ask(receiver.port, delivery(BODY))
    assert answer is not None
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert time.monotonic() - started < AT_ONCE
    store.go.set()
    assert {(await one).status for one in waiting} == {200}
    assert (await post(receiver.edge, BODY)).status == 200
    assert len(await receiver.records()) == 2001


async def test_who_was_answered_503_goes_on_counting_for_as_long_as_the_store_holds_it(
    held: tuple[Receiver, HeldStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the queue inside a hanging store would grow without end."""
    receiver, store = held
    monkeypatch.setattr("whereby_trigger.receive.receiver.ANSWER_WITHIN", 0.1)
    for lap in range(3):
        answers = await asyncio.gather(*(post(receiver.edge, numbered(lap * 1000 + n)) for n in range(1000)))
        assert {answer.status for answer in answers} == {503}
    assert store.asked == 2000
    store.go.set()
    await eventually(lambda: is_stored(receiver, 2000))
    monkeypatch.setattr("whereby_trigger.receive.receiver.ANSWER_WITHIN", 4.5)
    assert (await post(receiver.edge, BODY)).status == 200


async def test_64_mib_may_wait_and_beyond_it_503_is_heard_at_once(held: tuple[Receiver, HeldStore]) -> None:
    receiver, store = held
    body = b"\xff" * (MIB // 4)
    waiting = [asyncio.create_task(post(receiver.edge, body)) for _ in range(256)]
    await eventually(lambda: store.asked == 256)
    started = time.monotonic()
    assert (await post(receiver.edge, BODY)).status == 503
    assert time.monotonic() - started < AT_ONCE
    store.go.set()
    assert {(await one).status for one in waiting} == {200}
    assert (await post(receiver.edge, BODY)).status == 200


async def test_bodies_that_are_still_being_sent_are_bounded_and_the_first_of_them_gives_way(receiver: Receiver) -> None:
    """Nobody knows yet whether they are signed, so none of them may keep a delivery out."""
    body = b"x" * (MIB // 4)
    uploads = [Upload(body, complete=False) for _ in range(100)]
    sending = [asyncio.create_task(call(receiver.edge, upload)) for upload in uploads]
    await eventually(lambda: sum(one.done() for one in sending) == 100 - 64)
    assert receiver.edge.arriving.bytes == 16 * MIB
    for one in sending[:36]:
        answer = await one
        assert answer is not None
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert (await post(receiver.edge, BODY)).status == 200
    for upload in uploads:
        upload.hang_up.set()
    await asyncio.gather(*sending)
    assert receiver.edge.arriving.bytes == 0
    assert not receiver.edge.arriving.bodies


async def test_a_sender_that_hangs_up_while_the_store_works_leaves_its_place_when_the_store_is_done(
    held: tuple[Receiver, HeldStore],
) -> None:
    receiver, store = held
    gone = [asyncio.create_task(post(receiver.edge, numbered(n))) for n in range(2000)]
    await eventually(lambda: store.asked == 2000)
    for one in gone:
        one.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    assert (await post(receiver.edge, BODY)).status == 503
    store.go.set()
    await eventually(lambda: is_stored(receiver, 2000))
    assert (await post(receiver.edge, BODY)).status == 200


async def test_an_edge_whose_store_is_closed_answers_503(tmp_path: Path) -> None:
    async with Receiver(tmp_path) as receiver:
        pass
    assert (await post(receiver.edge, BODY)).status == 503
    ready = await call(receiver.edge, Upload(), method="GET", path="/readyz")
    assert ready is not None
    assert ready.status == 503


async def is_decided(receiver: Receiver) -> bool:
    return [record.state for record in await receiver.records()] == [State.FIRED]


async def is_stored(receiver: Receiver, count: int) -> bool:
    return len(await receiver.records()) == count
