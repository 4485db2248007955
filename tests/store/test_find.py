"""Reading stored webhooks by the filters of a person's query."""

import pytest

from tests.support.arrivals import NOW, arrival, decided
from whereby_trigger.store import Query, State, Store

pytestmark = pytest.mark.anyio

VISIT, LOBBY = "acme.whereby.com/visit-1", "acme.whereby.com/lobby"


@pytest.fixture
async def filled(store: Store) -> Store:
    await decided(store, "abc-1", State.FIRED, room=VISIT)  # type: ignore[arg-type]
    await decided(store, "abc-2", State.SKIPPED, room=LOBBY, type="room.client.left")  # type: ignore[arg-type]
    await store.add(arrival("abd", room=VISIT, type="room.client.left"))
    await store.add(arrival("100%_", room=None, type="recording.finished"))
    await store.add(arrival("sha256:0", type="", room=None, state=State.QUARANTINED, reason="odd"))
    await store.add(arrival("other", room="other.whereby.com/visit-1"))
    return store


async def ids(store: Store, query: Query) -> list[str]:
    return [found.id for found in await store.find(query)]


async def test_everything_is_found_newest_first(filled: Store) -> None:
    assert await ids(filled, Query()) == ["other", "sha256:0", "100%_", "abd", "abc-2", "abc-1"]


FOUND = [
    (Query(limit=2), ["other", "sha256:0"]),
    (Query(limit=0), []),
    (Query(limit=100, state=State.FIRED), ["abc-1"]),
    (Query(ids=("abd", "abc-1", "nobody")), ["abd", "abc-1"]),
    (Query(ids=()), []),
    (Query(prefix="abc"), ["abc-2", "abc-1"]),
    (Query(prefix=""), ["other", "sha256:0", "100%_", "abd", "abc-2", "abc-1"]),
    (Query(prefix="100%_"), ["100%_"]),
    (Query(prefix="%"), []),
    (Query(prefix="ABC"), []),
    (Query(state=State.PENDING), ["other", "100%_", "abd"]),
    (Query(state=State.QUARANTINED), ["sha256:0"]),
    (Query(state=State.FAILED), []),
    (Query(type="room.client.left"), ["abd", "abc-2"]),
    (Query(type=""), ["sha256:0"]),
    (Query(room=VISIT), ["abd", "abc-1"]),
    (Query(room="/visit-1"), ["other", "abd", "abc-1"]),
    (Query(room="/visit"), []),
    (Query(room=VISIT, type="room.client.left"), ["abd"]),
    (Query(room="/visit-1", state=State.FIRED, type="room.client.left"), []),
]


async def test_a_query_finds_what_matches_all_of_it(filled: Store) -> None:
    for query, expected in FOUND:
        assert await ids(filled, query) == expected, query


async def test_a_room_is_found_by_its_name_as_whereby_and_people_write_it(store: Store) -> None:
    await store.add(arrival("a", room="acme.whereby.com/caf%C3%A9%201"))
    for name in ("/café 1", "/caf%C3%A9%201", "/café%201", "/café 1/"):
        assert await ids(store, Query(room=name)) == ["a"], name


TIMES = [
    (Query(since=NOW + 2), ["c pending", "b", "a pending"]),
    (Query(since=NOW + 2, until=NOW + 4), ["b", "a pending"]),
    (Query(until=NOW + 3), ["a pending", "first"]),
    (Query(since=NOW + 2, limit=2), ["c pending", "b"]),
    (Query(since=NOW, state=State.PENDING), ["c pending", "a pending"]),
    (Query(since=NOW, state=State.PENDING, limit=1), ["c pending"]),
    (Query(since=NOW, state=State.FIRED), ["b", "first"]),
    (Query(since=NOW, room="/lobby"), ["b"]),
    (Query(since=NOW, ids=("b", "a pending")), ["b", "a pending"]),
    (Query(since=NOW + 5), []),
    (Query(since=NOW, limit=0), []),
]


async def test_what_was_received_in_a_time_is_found_the_latest_first(store: Store) -> None:
    # In this order, as a spill may pass them on.
    await store.add(arrival("c pending", received_at=NOW + 4))
    await decided(store, "first", received_at=NOW)
    await decided(store, "b", received_at=NOW + 3, room=LOBBY)  # type: ignore[arg-type]
    await store.add(arrival("a pending", received_at=NOW + 2))
    for query, expected in TIMES:
        assert await ids(store, query) == expected, query


async def test_what_was_received_in_a_time_is_replayed(store: Store) -> None:
    for n in range(4):
        await decided(store, str(n), received_at=NOW + n)
    assert sorted(await store.replay(Query(since=NOW + 1, until=NOW + 3), NOW)) == ["1", "2"]
    assert await ids(store, Query(state=State.PENDING)) == ["2", "1"]
