"""Values that break careless stores, and what happens to one among many that no store can accept."""

import asyncio

import pytest

from tests.support.arrivals import arrival, decided, decision, record
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store import Query, State, Store

pytestmark = pytest.mark.anyio

BODIES = {
    "empty": b"",
    "NUL": b'{"x":"\0"}\0',
    "every byte": bytes(range(256)),
    "256 KiB": b"\xff\0" * (128 * 1024),
    "looks like SQL": b"'); DROP TABLE webhooks; --",
    "looks like a number": b"0123",
    "escapes": rb"\x00\\000\u0000",
}


async def test_a_body_comes_back_byte_for_byte(store: Store) -> None:
    await asyncio.gather(*(store.add(arrival(name, body=body)) for name, body in BODIES.items()))
    assert {found.id: found.body for found in await store.find(Query())} == BODIES
    assert {row.id: row.body for row in await store.pending(0, 100)} == BODIES


TEXTS = ["Grüße 🎥", "\u00e9", "e\u0301", "مرحبا", "a' OR '1'='1", "100%_", " ", "\n\t\x7f", "x" * 256, "🎥" * 256]


async def test_texts_come_back_as_they_were_and_no_two_are_mixed_up(store: Store) -> None:
    for text in TEXTS:
        await decided(store, text, State.FIRED, room=text, type=text)  # type: ignore[arg-type]
    for text in TEXTS:
        stored = await record(store, text)
        assert (stored.id, stored.type, stored.room, stored.deliveries) == (text, text, text, 1)


async def test_reasons_and_errors_come_back_as_they_were(store: Store) -> None:
    added = await store.add(arrival("a"))
    await store.decide(decision(added.seq, "a", reason="Grüße 🎥 '\"", errors=("{}", "[1]", "\\", "Grüße\n🎥")))
    stored = await record(store, "a")
    assert stored.reason == "Grüße 🎥 '\""
    assert stored.errors == ("{}", "[1]", "\\", "Grüße\n🎥")


async def test_a_value_that_no_store_takes_fails_alone_and_its_batch_mates_are_stored(store: Store) -> None:
    added = [await store.add(arrival(id)) for id in "abc"]
    good, bad, also_good = (
        store.decide(decision(added[0].seq, "a")),
        store.decide(decision(added[1].seq, "b", reason="a lone \ud800 surrogate")),
        store.decide(decision(added[2].seq, "c", State.SKIPPED)),
    )
    bad_arrival, new = store.add(arrival("\udfff")), store.add(arrival("d"))
    results = await asyncio.gather(good, bad, also_good, bad_arrival, new, return_exceptions=True)
    assert results[0] is True
    assert results[2] is True
    assert not results[4].duplicate  # type: ignore[union-attr]
    for refused in (results[1], results[3]):
        assert isinstance(refused, StoreError)
        assert not isinstance(refused, StoreUnavailable)
        assert "refused" in str(refused)
    states = {found.id: found.state for found in await store.find(Query())}
    assert states == {"a": State.FIRED, "b": State.PENDING, "c": State.SKIPPED, "d": State.PENDING}


async def test_a_batch_that_fails_on_data_counts_no_delivery_twice(store: Store) -> None:
    adding = [store.add(arrival("a")) for _ in range(10)]
    bad = store.add(arrival("\ud800"))
    adding += [store.add(arrival("a")) for _ in range(10)]
    await asyncio.gather(bad, *adding, return_exceptions=True)
    assert (await record(store, "a")).deliveries == 20


async def test_asking_for_what_no_store_can_hold_is_an_error_in_words(store: Store) -> None:
    with pytest.raises(StoreError, match="refused"):
        await store.find(Query(ids=("\udcff",)))
