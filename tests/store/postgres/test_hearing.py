"""Numbers are assigned before they are committed, and late ones are still noticed."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.arrivals import ROOM, arrival, decision
from tests.support.place import Place
from tests.support.postgres_place import postgres_place
from whereby_trigger.store import Query, Record, Store, Subject, forget
from whereby_trigger.store.postgres.cursor import SETTLES_IN

pytestmark = pytest.mark.anyio

HERE = frozenset({ROOM})
NUMBER = "SELECT nextval('whereby_trigger.webhooks_seq')"
STORE = """
INSERT INTO whereby_trigger.webhooks (seq, id, type, room, body, received_at, queued_at, state)
VALUES ($1, $2, 'room.client.joined', $3, 'late', 0, 0, 'pending')
"""
STORE_DECIDED = """
INSERT INTO whereby_trigger.webhooks (seq, id, type, body, received_at, queued_at, state, decided_at)
VALUES ($1, $2, 'room.client.left', $3, 0, 0, 'skipped', 0)
"""


async def add_body(store: Store, id: str, data: dict[str, str]) -> None:
    added = await store.add(arrival(id, body=json.dumps({"id": id, "data": data}).encode()))
    assert await store.decide(decision(added.seq, id))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with postgres_place(tmp_path) as place:
        yield place


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place.replica()
    await store.open(lambda: None)
    yield store
    await store.close()


@asynccontextmanager
async def storing_late(place: Place) -> AsyncIterator[tuple[Any, int]]:
    """Yield a connection that has got a number and has not committed yet, with the number."""
    connection = await asyncpg.connect(place.url)
    try:
        await connection.execute("BEGIN")
        yield connection, await connection.fetchval(NUMBER)
    finally:
        await connection.close()


async def heard(store: Store, after: int) -> tuple[list[int], int]:
    found = await store.webhooks_after(after, HERE)
    return [seq for _, seq, _ in found.webhooks], found.cursor


async def test_a_lower_number_that_is_committed_after_a_higher_one_is_heard(place: Place, store: Store) -> None:
    first = await store.add(arrival("first"))
    place.clock.jump(SETTLES_IN + 1)
    async with storing_late(place) as (connection, late):
        higher = await store.add(arrival("higher"))
        assert await heard(store, 0) == ([first.seq, higher.seq], first.seq)
        place.clock.jump(SETTLES_IN - 1)
        assert await heard(store, first.seq) == ([higher.seq], first.seq)
        await connection.execute(STORE, late, "late", ROOM)
        await connection.execute("COMMIT")
    assert await heard(store, first.seq) == ([late, higher.seq], first.seq)
    place.clock.jump(SETTLES_IN + 1)
    assert await heard(store, first.seq) == ([late, higher.seq], higher.seq)
    assert await heard(store, higher.seq) == ([], higher.seq)


async def test_a_person_is_forgotten_in_what_is_committed_late_however_many_are_committed_before(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.store.privacy.AT_ONCE", 2)
    person = Subject(frozenset({"p1"}), external_id="e1")
    async with storing_late(place) as (connection, late):
        for number in range(9):
            await add_body(store, f"{number}", {"displayName": "Robin"})
        await add_body(store, "link", {"participantId": "p1", "externalId": "e1"})

        async def commit_late(after: int, limit: int) -> list[Record]:
            page = await records_after(after, limit)
            if page and page[-1].id == "link" and connection.is_in_transaction():
                await connection.execute(STORE_DECIDED, late, "late", b'{"data": {"participantId": "p1"}}')
                await connection.execute("COMMIT")
            return page

        records_after = store.records_after
        monkeypatch.setattr(store, "records_after", commit_late)
        assert (await forget(store, person)).webhooks == 2
    assert not [record.id for record in await store.find(Query()) if b"p1" in record.body]


async def test_the_beginning_moves_on_step_by_step_and_never_back(place: Place, store: Store) -> None:
    cursor = 0
    for number in range(4):
        added = await store.add(arrival(str(number)))
        found, cursor = await heard(store, cursor)
        assert found[-1] == added.seq
        assert cursor == max(0, added.seq - 2)
        place.clock.jump(SETTLES_IN / 2 + 1)


async def test_a_database_whose_clock_is_set_back_goes_on_being_heard(place: Place, store: Store) -> None:
    before = await store.add(arrival("before"))
    place.clock.jump(SETTLES_IN + 1)
    assert await heard(store, 0) == ([before.seq], before.seq)
    place.clock.jump(-3600)
    after = await store.add(arrival("after"))
    assert await heard(store, before.seq) == ([after.seq], before.seq)
    place.clock.jump(SETTLES_IN + 1)
    assert await heard(store, before.seq) == ([after.seq], after.seq)
