"""Runs on PostgreSQL: replicas of the version before have none, and their rooms continue beside ours."""

import pytest

from tests.store.conftest import Replicas
from tests.support.postgres import Server, database_of
from tests.support.rooms import ask
from whereby_trigger.store import RoomMove, RoomState, RunOutcome, RunQuery
from whereby_trigger.store.postgres import PostgresStore, opening

pytestmark = pytest.mark.anyio

OLD = """
INSERT INTO whereby_trigger.rooms (key, url, state, owner, asked_at, queued_at, since, attempt, stop, reason, errors)
VALUES
('acme.whereby.com/failed', '', 'failed', NULL, 1, 10, 20, 4, NULL, 'exited with 75', ARRAY['no key', 'again']),
('acme.whereby.com/stopped', '', 'ended', NULL, 1, 10, 20, 1, 'by hand', 'by hand', ARRAY['leaving']),
('acme.whereby.com/quiet', '', 'ended', NULL, 1, 10, 20, 1, NULL, 'it left the room', '{}'),
('acme.whereby.com/live', '', 'live', 'older', 1, 10, 20, 1, NULL, '', '{}')
"""
TAKEN_BY_OLDER = """
UPDATE whereby_trigger.rooms SET state = 'live', owner = 'older', attempt = attempt + 1 WHERE state = 'waiting'
"""
MOVED_BY_OLDER = """
UPDATE whereby_trigger.rooms SET state = 'failed', owner = NULL, errors = ARRAY['it said'] WHERE owner = 'older'
"""


async def test_what_a_room_of_an_older_store_kept_of_its_last_run_is_a_run(
    postgres: Server, url: str, opened: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {number: script for number, script in opening.scripts().items() if number < 6}
    with monkeypatch.context() as older:
        older.setattr(opening, "scripts", lambda: before)
        await PostgresStore(url).migrate()
    postgres.run(OLD, database_of(url))
    postgres.run(f"UPDATE whereby_trigger.version SET schema = {max(before)}", database_of(url))
    store = await opened(url)
    failed, stopped = reversed(await store.find_runs(RunQuery()))
    assert (failed.attempt, failed.outcome, failed.output) == (4, RunOutcome.FAILED, "no key\nagain")
    assert (failed.started_at, failed.live_at, failed.ended_at, failed.replica) == (10, None, 20, None)
    assert (stopped.key, stopped.outcome) == ("acme.whereby.com/stopped", RunOutcome.STOPPED)
    # The owner of the live room is gone, and its run was never recorded.
    await store.take_over()
    (taken,) = await store.take(1)
    assert taken.key == "acme.whereby.com/live"
    assert [run.attempt for run in await store.find_runs(RunQuery(entry=taken.id))] == [2]


async def test_a_replica_of_the_version_before_moves_rooms_beside_ours(
    postgres: Server, url: str, opened: Replicas
) -> None:
    store = await opened(url)
    await ask(store)
    (room,) = await store.take(1)
    assert await store.move(RoomMove(room.id, RoomState.WAITING, "handed over"))
    postgres.run(TAKEN_BY_OLDER, database_of(url))
    postgres.run(MOVED_BY_OLDER, database_of(url))
    await ask(store)
    (again,) = await store.take(1)
    assert await store.move(RoomMove(again.id, RoomState.LIVE, ""))
    assert [(run.entry, run.attempt, run.ended_at is None) for run in await store.find_runs(RunQuery())] == [
        (again.id, 1, True),
        (room.id, 1, False),
    ]
