"""What is stored about a person or a room is removed when it should be, and then it is in no file of the store."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import asyncpg
import pytest
from msgspec import structs

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, ROOM, arrival, decision, holding, record
from tests.support.place import Place
from tests.support.postgres import database_of, shared_server
from tests.support.stores import KINDS
from whereby_trigger.store import (
    ActionKind,
    ActionRecord,
    Query,
    Record,
    Rewrite,
    RoomMove,
    RoomRequest,
    RoomState,
    RunOutcome,
    RunQuery,
    RunReport,
    State,
    Store,
    Subject,
    about,
    forget,
    identified,
    remove_bodies,
)
from whereby_trigger.store.postgres import store as postgres_store
from whereby_trigger.store.sqlite import privacy as sqlite_privacy
from whereby_trigger.store.sqlite import store as sqlite_store
from whereby_trigger.webhook import decode

pytestmark = pytest.mark.anyio

PARTICIPANT = frozenset({"mark-participant"})
MARKS = ("Mårk-Näme", "mark-metadata", "mark-external")


def body(
    id: str, participant: str = "mark-participant", external: str = "mark-external", room: str = "/visit-1"
) -> bytes:
    data = {
        "roomName": room,
        "subdomain": "acme",
        "roomSessionId": "s1",
        "displayName": "Mårk-Näme",
        "metadata": "mark-metadata",
        "externalId": external,
        "participantId": participant,
    }
    fields = {"id": id, "type": "room.client.joined", "createdAt": "2026-11-29T10:00:00.000Z", "data": data}
    return json.dumps(fields, ensure_ascii=False).encode()


async def add(store: Store, id: str, *, decide: bool = True, **values: str) -> int:
    added = await store.add(arrival(id, body=body(id, **values)))
    if decide:
        assert await store.decide(decision(added.seq, id, errors=("listener f: ValueError: Mårk-Näme",)))
    return added.seq


async def everything_about(store: Store, subject: Subject) -> list[Record]:
    return [record async for records in about(store, subject) for record in records]


def files_of(place: Place) -> Iterator[bytes]:
    """Yield the content of every file in which a store keeps its rows."""
    if place.url.startswith("sqlite"):
        path = Path(place.url.removeprefix("sqlite:///"))
        files = [file for file in path.parent.iterdir() if file.name.startswith(path.name)]
        assert len(files) >= 2
    else:
        database = database_of(place.url)
        # Until this checkpoint, changes are in the server's memory.
        shared_server().run("CHECKPOINT", database)
        found = shared_server().run("SELECT oid FROM pg_database WHERE datname = current_database()", database)
        files = list((shared_server().data / "base" / str(found).strip()).iterdir())
        assert len(files) > 100
    return (file.read_bytes() for file in files if file.is_file())


async def assert_wiped(store: Store, place: Place, *marks: str) -> None:
    """Clean the store's files, and look for the marks in them; behind a pooler nothing can be cleaned."""
    left = await store.wipe(rewrite=None)
    if "pgbouncer" in KINDS and "behind a pooler of transactions" in left:
        return
    assert left == ""
    assert [mark for mark in marks if holds(place, mark)] == []


def sample(place: Place) -> None:
    """Make the planner keep samples of the columns, as autovacuum does now and then."""
    if not place.url.startswith("sqlite"):
        shared_server().run("ANALYZE", database_of(place.url))


def holds(place: Place, text: str) -> bool:
    return any(text.encode() in content for content in files_of(place))


async def test_a_decision_replaces_the_body_in_the_same_commit(store: Store) -> None:
    redacting, plain = [await store.add(arrival(id, body=b"{whole}")) for id in ("a", "b")]
    given = decision(redacting.seq, "a")
    assert await store.decide(structs.replace(given, body=b"{}"))
    assert await store.decide(decision(plain.seq, "b"))
    assert (await record(store, "a")).body == b"{}"
    assert (await record(store, "b")).body == b"{whole}"
    assert not await store.decide(structs.replace(given, body=b"later"))
    assert (await record(store, "a")).body == b"{}"


async def test_a_forgotten_person_is_in_no_file_of_the_store(replicas: Replicas, place: Place) -> None:
    serving, store = await replicas(), await replicas()
    others = [arrival(f"other {n}", body=b'{"displayName":"other"}') for n in range(100)]
    await asyncio.gather(*(add(serving, f"w{n}") for n in range(100)), *map(serving.add, others))
    assert holds(place, "mark-metadata")
    sample(place)
    forgotten = await forget(store, Subject(external_id="mark-external"))
    assert (forgotten.webhooks, forgotten.undecided) == (100, ())
    await assert_wiped(store, place, *MARKS, "mark-participant")
    left = await record(store, "w7")
    assert (left.state, left.reason, left.errors) == (State.FIRED, "predicate f returned True", ())
    assert json.loads(left.body)["data"]["displayName"] == "[[removed]]"
    assert decode(left.body).data.room_name == "/visit-1"  # type: ignore[union-attr]
    assert await everything_about(store, Subject(external_id="mark-external")) == []
    # The other replica continues.
    await add(serving, "after")


async def test_a_webhook_without_a_decision_is_left_and_named(store: Store) -> None:
    await add(store, "pending", decide=False)
    seq = await add(store, "held", decide=False)
    assert await store.hold(holding(seq, "held"))
    await add(store, "decided")
    forgotten = await forget(store, Subject(PARTICIPANT))
    assert (forgotten.webhooks, sorted(forgotten.undecided)) == (1, ["held", "pending"])
    assert b"mark-metadata" in (await record(store, "pending")).body


def says(text: str) -> RunReport:
    return RunReport(RunOutcome.FAILED, exit_code=1, exception="ValueError", output=text)


async def test_a_forgotten_person_is_removed_from_what_assistants_wrote(store: Store, place: Place) -> None:
    await add(store, "w")
    await store.request(RoomRequest(ROOM, f"https://{ROOM}", "w", "s1", NOW))
    (taken,) = await store.take(1)
    await store.move(RoomMove(taken.id, RoomState.WAITING, "refused: Mårk-Näme is no friend", run=says("Mårk-Näme")))
    (again,) = await store.take(1)
    await forget(store, Subject(PARTICIPANT))
    # What it writes from now on is not kept either: the webhooks that lead here name nobody any more.
    assert await store.move(RoomMove(again.id, RoomState.FAILED, "exited with 1", run=says("Mårk-Näme left")))
    (room,) = await store.rooms()
    assert (room.state, room.reason) == (RoomState.FAILED, "exited with 1")
    runs = await store.find_runs(RunQuery(entry=room.id))
    assert [(run.reason, run.output, run.exception, run.exit_code) for run in runs] == [
        ("exited with 1", "", None, 1),
        ("refused", "", None, 1),
    ]
    await assert_wiped(store, place, "Mårk-Näme")


async def test_what_assistants_wrote_in_other_rooms_stays(store: Store) -> None:
    await add(store, "w")
    elsewhere = "acme.whereby.com/other"
    for key in (ROOM, elsewhere):
        await store.request(RoomRequest(key, f"https://{key}", None, None, NOW))
    for taken in await store.take(2):
        await store.move(RoomMove(taken.id, RoomState.FAILED, "refused: why", run=says("said")))
    await forget(store, Subject(PARTICIPANT))
    kept = {run.key: (run.reason, run.output) for run in await store.find_runs(RunQuery())}
    assert kept == {ROOM: ("refused", ""), elsewhere: ("refused: why", "said")}


async def test_an_error_that_comes_after_the_forgetting_is_not_kept(store: Store) -> None:
    await add(store, "w")
    await forget(store, Subject(PARTICIPANT))
    store.append_error("w", "listener f: ValueError: Mårk-Näme")
    await add(store, "after")
    assert (await record(store, "w")).errors == ()


async def test_an_external_id_leads_to_the_webhooks_that_only_hold_a_participant_id(store: Store) -> None:
    await add(store, "named")
    await add(store, "unnamed", external="")
    await add(store, "someone else", participant="p2", external="else")
    person = await identified(store, Subject(external_id="mark-external"))
    assert (await forget(store, person)).webhooks == 2
    assert b"mark-metadata" not in (await record(store, "unnamed")).body
    assert b"mark-metadata" in (await record(store, "someone else")).body


async def test_what_leads_to_a_webhook_that_is_not_decided_yet_is_left_with_it(store: Store) -> None:
    await add(store, "named")
    seq = await add(store, "unnamed", external="", decide=False)
    person = Subject(external_id="mark-external")
    forgotten = await forget(store, await identified(store, person))
    assert (forgotten.webhooks, forgotten.undecided) == (0, ("unnamed", "named"))
    assert await store.decide(decision(seq, "unnamed"))
    forgotten = await forget(store, await identified(store, person))
    assert (forgotten.webhooks, forgotten.undecided) == (2, ())
    # Again, which finds nothing.
    assert (await forget(store, await identified(store, person))).webhooks == 0


async def test_what_is_replayed_while_it_is_forgotten_keeps_what_leads_to_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(store, "unnamed", external="")
    await add(store, "named")
    rewrite = store.rewrite

    async def replayed_before(rewrites: Sequence[Rewrite], now: float, *, silence: bool = False) -> int:
        await store.replay(Query(ids=("unnamed",)), NOW)
        return await rewrite(rewrites, now, silence=silence)

    monkeypatch.setattr(store, "rewrite", replayed_before)
    person = Subject(external_id="mark-external")
    forgotten = await forget(store, await identified(store, person))
    assert forgotten.undecided == ("unnamed", "named")
    assert (await identified(store, person)).participants == PARTICIPANT


def before_the_links(store: Store, monkeypatch: pytest.MonkeyPatch, come: Callable[[], Awaitable[object]]) -> None:
    """Call `come` between the two searches of `forget`: for a participant's webhooks, and for the links."""
    records_after, searches = store.records_after, 0

    async def read(after: int, limit: int) -> list[Record]:
        nonlocal searches
        searches += after == 0
        if searches == 2 and after == 0:
            searches += 1
            await come()
        return await records_after(after, limit)

    monkeypatch.setattr(store, "records_after", read)


@pytest.mark.parametrize("decide", [True, False])
async def test_what_comes_while_a_person_is_forgotten_is_forgotten_too_or_named_with_what_leads_to_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, decide: bool
) -> None:
    await add(store, "named")
    person = await identified(store, Subject(external_id="mark-external"))
    with monkeypatch.context() as patched:
        before_the_links(store, patched, lambda: add(store, "late", external="", decide=decide))
        gone = await forget(store, person)
    left = sorted(record.id for record in await store.find(Query()) if b"mark-metadata" in record.body)
    assert left == sorted(gone.undecided) == ([] if decide else ["late", "named"])


async def test_who_joins_again_while_the_person_is_forgotten_is_forgotten_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(store, "named")
    person = await identified(store, Subject(external_id="mark-external"))

    async def join_again() -> None:
        await add(store, "again", participant="p2")
        await add(store, "unnamed", participant="p2", external="")

    with monkeypatch.context() as patched:
        before_the_links(store, patched, join_again)
        assert (await forget(store, person)).webhooks == 3
    assert not any(b"mark-metadata" in found.body for found in await store.find(Query()))


async def test_an_interrupted_forgetting_is_completed_by_the_next(store: Store) -> None:
    await asyncio.gather(*(add(store, f"unnamed {n}", external="") for n in range(600)))
    await add(store, "named")

    class Killed(Exception):
        pass

    def die(changed: int) -> None:
        raise Killed

    person = Subject(external_id="mark-external")
    with pytest.raises(Killed):
        await forget(store, await identified(store, person), die)
    assert (await forget(store, await identified(store, person))).webhooks == 101
    assert not any(b"mark-metadata" in found.body for found in await store.find(Query()))


async def test_a_forgotten_room_is_in_no_file_of_the_store(store: Store, place: Place) -> None:
    await asyncio.gather(*(add(store, f"w{n}") for n in range(100)))
    await add(store, "pending", decide=False)
    await store.add(arrival("recording", body=body("recording"), room=None))
    await store.add(arrival("elsewhere", body=b'{"id":"elsewhere"}', room="acme.whereby.com/other"))
    await store.request(RoomRequest(ROOM, f"https://{ROOM}", "w1", "s1", NOW))
    await store.add_action(ActionRecord("action", NOW, "inspector", ActionKind.START, ROOM, None))
    sample(place)
    forgotten = await forget(store, Subject(room="/visit-1"))
    assert (forgotten.webhooks, forgotten.rooms) == (102, ())
    assert [found.id for found in await store.find(Query())] == ["elsewhere"]
    assert await store.rooms() == []
    await assert_wiped(store, place, *MARKS, "mark-participant", "visit-1")


@pytest.mark.parametrize("wanted", ["/visit-1", ROOM])
async def test_a_room_is_forgotten_with_what_names_it_and_is_no_webhook(store: Store, wanted: str) -> None:
    of_room = [
        b'{"type":"room.client.joined","data":{"roomName":"/visit-1","subdomain":"acme","displayName":"Ada"}}',
        b'{"data":[{"roomName":"visit%2D1","displayName":"Ada"}]}',
        rb'{"id":"cut","data":{"displayName":"Ada","subdomain":"Acme","roomName":"\/visit-1',
        '{"data":{"roomName":"/visit-1","displayName":"Ada"}'.encode("utf-16"),
    ]
    of_others = [
        b'{"data":[{"roomName":"/visit-10","displayName":"/visit-1"}]}',
        rb'{"data":{"roomName":"\/visit-10","displayName":"/visit-1',
        rb'{"data":[{"roomName":"\ud800"}]}',
        b'{"data":[{"roomName":"/other","subdomain":"acme"}]}',
    ]
    for number, odd in enumerate(of_room + of_others):
        await store.add(arrival(f"odd-{number}", body=odd, room=None, state=State.QUARANTINED, reason="no id"))
    assert (await forget(store, Subject(room=wanted))).webhooks == len(of_room)
    assert {found.body for found in await store.find(Query())} == set(of_others)


async def test_a_room_that_has_an_assistant_is_named_and_its_run_is_not_kept(store: Store) -> None:
    await store.request(RoomRequest(ROOM, f"https://{ROOM}", None, None, NOW))
    (taken,) = await store.take(1)
    assert (await forget(store, Subject(room="/visit"))).rooms == ()
    assert (await forget(store, Subject(room=ROOM))).rooms == (ROOM,)
    assert await store.move(RoomMove(taken.id, RoomState.FAILED, "exited with 1", run=says("Mårk-Näme left")))
    assert [run.output for run in await store.find_runs(RunQuery())] == [""]
    assert (await forget(store, Subject(room=ROOM))).rooms == ()
    assert (await store.rooms(), await store.find_runs(RunQuery())) == ([], [])


async def test_a_forgotten_webhook_whose_copy_could_be_sent_again_is_still_a_duplicate(store: Store) -> None:
    await store.add(arrival("a", body=body("a"), kept_until=1e12))
    assert (await forget(store, Subject(room=ROOM))).webhooks == 1
    left = await record(store, "a")
    assert (left.state, left.reason, left.room, left.type, left.body) == (State.SKIPPED, "forgotten", None, "", b"{}")
    assert (await store.add(arrival("a"))).duplicate
    assert await store.replay(Query(ids=("a",)), NOW) == []


async def test_old_bodies_go_before_their_decisions(store: Store, place: Place) -> None:
    old = [arrival(f"old {n}", body=body(f"old {n}"), state=State.QUARANTINED) for n in range(1200)]
    await asyncio.gather(
        *(store.add(structs.replace(one, received_at=NOW - 100 + n / 100)) for n, one in enumerate(old))
    )
    await store.add(arrival("pending", body=b"{}", received_at=NOW - 100))
    await store.add(arrival("new", body=b"{}", received_at=NOW, state=State.QUARANTINED))
    assert await remove_bodies(store, NOW - 1) == 1200
    assert await remove_bodies(store, NOW - 1) == 0
    left = await record(store, "old 7")
    assert left.body_removed_at is not None
    fields = json.loads(left.body)
    assert {name: value for name, value in fields["data"].items() if value != "[[removed]]"} == {
        "roomName": "/visit-1",
        "roomSessionId": "s1",
        "subdomain": "acme",
    }
    assert (fields["id"], fields["type"]) == ("old 7", "room.client.joined")
    assert decode(left.body).created_at == decode(body("old 7")).created_at
    await assert_wiped(store, place, "mark-metadata")
    assert (await record(store, "new")).body_removed_at is None


async def test_what_has_lost_its_body_is_not_replayed(store: Store) -> None:
    for id in ("old", "new"):
        await store.add(arrival(id, body=body(id), received_at=NOW - (id == "old"), state=State.QUARANTINED))
    await remove_bodies(store, NOW)
    assert await store.replay(Query(), NOW) == ["new"]


async def test_pruned_webhooks_are_in_no_file_of_the_store(store: Store, place: Place) -> None:
    await asyncio.gather(*(add(store, f"w{n}") for n in range(100)))
    assert await store.prune(NOW + 1) == 100
    await assert_wiped(store, place, *MARKS, "mark-participant")


@asynccontextmanager
async def reading(place: Place) -> AsyncIterator[None]:
    """Read the store in a transaction that does not end, as a backup or a forgotten shell does."""
    if place.url.startswith("sqlite"):
        with closing(sqlite3.connect(place.url.removeprefix("sqlite:///"), isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM webhooks").fetchone()
            yield
    else:
        connection = await asyncpg.connect(place.url)
        try:
            async with connection.transaction(isolation="repeatable_read"):
                await connection.fetch("SELECT count(*) FROM whereby_trigger.webhooks")
                yield
        finally:
            await connection.close()


async def test_who_still_reads_the_old_rows_is_named_and_nothing_is_promised(
    replicas: Replicas, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "EMPTIED_WITHIN", 0.2)
    monkeypatch.setattr(postgres_store, "READERS_WITHIN", 0.2)
    serving, store = await replicas(), await replicas()
    await asyncio.gather(*(add(serving, f"w{n}") for n in range(20)))
    async with reading(place):
        assert (await forget(store, Subject(PARTICIPANT))).webhooks == 20
        if "behind a pooler" in (left := await store.wipe(rewrite=None)):
            return
        assert "reads the file and does not finish" in left or "may still read the old rows" in left
        # Deliveries continue meanwhile.
        assert not (await serving.add(arrival("meanwhile"))).duplicate
    await assert_wiped(store, place, "mark-metadata")


@pytest.mark.parametrize(
    ("lock", "why"),
    [
        ("SELECT FROM whereby_trigger.webhooks", "may still read the old rows"),
        ("LOCK TABLE whereby_trigger.webhooks", "another transaction has locked the tables"),
    ],
)
async def test_a_transaction_left_open_is_named_and_no_delivery_waits_for_it(
    replicas: Replicas, place: Place, monkeypatch: pytest.MonkeyPatch, lock: str, why: str
) -> None:
    if not place.url.startswith("postgres"):
        pytest.skip("a reader of a file keeps no lock on it")
    monkeypatch.setattr(postgres_store, "READERS_WITHIN", 0.2)
    serving, store = await replicas(), await replicas()
    await add(serving, "w")
    assert (await forget(store, Subject(PARTICIPANT))).webhooks == 1
    connection = await asyncpg.connect(shared_server().url(database_of(place.url)))
    try:
        # As psql does: nothing is left open but the transaction, which then reads as of no time.
        await connection.execute(f"BEGIN; {lock}")
        wiping = asyncio.ensure_future(store.wipe(rewrite=None))
        if lock.startswith("SELECT"):
            for number in range(20):
                assert not (await serving.add(arrival(f"meanwhile-{number}"))).duplicate
        left = await wiping
        assert why in left or "behind a pooler" in left
    finally:
        await connection.close()


async def test_a_large_store_is_written_again_only_if_asked(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_privacy, "SMALL", 0)
    monkeypatch.setattr(postgres_store, "SMALL", 0)
    await asyncio.gather(*(add(store, f"w{n}") for n in range(20)))
    await forget(store, Subject(PARTICIPANT))
    if "behind a pooler" in (left := await store.wipe(rewrite=None)):
        return
    assert "run this again with --rewrite" in left
    assert await store.wipe(rewrite=True) == ""
    assert not holds(place, "mark-metadata")


async def test_a_body_that_nobody_can_read_is_forgotten_with_the_others(store: Store) -> None:
    odd = b'{"externalId": "mark-external", "displayName": "Ada'
    await store.add(arrival("odd", body=odd, state=State.QUARANTINED, reason="the body is not JSON"))
    await add(store, "named")
    person = await identified(store, Subject(external_id="mark-external"))
    assert (await forget(store, person)).webhooks == 2
    assert (await record(store, "odd")).body == b'"[[removed]]"'
