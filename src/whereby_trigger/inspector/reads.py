"""What each page reads from the store: a few bounded queries, each found by an index."""

import time
from collections.abc import Iterable
from typing import Final

from msgspec import Struct, structs

from whereby_trigger.inspector.filters import Filters
from whereby_trigger.inspector.history import RoomHistory, timeline
from whereby_trigger.inspector.picture import RUN_KINDS
from whereby_trigger.store import (
    UNKNOWN,
    Presence,
    Query,
    Record,
    RefusalCount,
    Room,
    RoomQuery,
    RunQuery,
    RunRecord,
    State,
    Store,
    Workload,
)

ROWS: Final = 100
"""Rows of a page: with their words, some 60 KB."""

HAPPENINGS: Final = 150
"""Webhooks that a room's page shows."""

LOOKED_AT: Final = 400
"""Newest webhooks among which the rooms of now are found."""

MEETING: Final = 6 * 3600.0
"""Seconds that a room's page looks back at first, from the last time that something happened there."""

PAUSE: Final = 2 * 3600.0
"""A longer time without anything parts one meeting from the next."""

SEARCH_WITHIN: Final = 0.03
"""Seconds after which a search goes no further back: most filters have no index, and a page is to come at once."""

FIRST_WINDOW: Final = 1800.0
"""Seconds that a search looks back at first; each further look goes twice as far."""

LAST_WINDOW: Final = 400 * 86400.0
"""A longer look goes back to the beginning."""

MARGIN: Final = 0.04
"""The share of a picture's time that is left free on either side."""


class LivePage(Struct, frozen=True):
    """Hold the newest deliveries that match; `back_to` is how far back was searched, None if all the way."""

    records: list[Record]
    more: bool
    stored: bool
    back_to: float | None = None


class RoomNow(Struct, frozen=True):
    """Describe a room now: who is there, its assistant if it asked for one, and when its last webhook came."""

    key: str
    presence: Presence
    entry: Room | None
    last: float | None


class RoomPage(Struct, frozen=True):
    key: str
    presence: Presence
    entry: Room | None
    timeline: RoomHistory
    more: bool
    known: bool


class WebhookPage(Struct, frozen=True):
    record: Record
    assistants: list[tuple[Room, list[RunRecord]]]


class HealthPage(Struct, frozen=True):
    workload: Workload
    open: list[Room]
    failed: list[Room]
    newest: Record | None
    owners: list[str]


async def live_page(store: Store, filters: Filters, now: float) -> LivePage:
    """Read the newest deliveries that match."""
    if filters.wrong:
        return LivePage([], False, True)
    query, back_to = filters.selected, None
    if query.room is None and query.type is None and query.state is None:
        found = await store.find(structs.replace(query, limit=ROWS + 1))
    else:
        found, back_to = await search(store, query, ROWS + 1, now)
    stored = bool(found) or bool(await store.newest())
    return LivePage(found[:ROWS], len(found) > ROWS, stored, back_to)


async def search(store: Store, query: Query, limit: int, now: float) -> tuple[list[Record], float | None]:
    """Return the newest `limit` webhooks that match, and the time back to which was searched, or None if to the end.

    Times are found by an index, and what else a query asks for may not be. So this looks back in windows, each twice
    as long as the one before, until it has found enough or time is up.
    """
    begun, found = time.monotonic(), list[Record]()
    # Clocks differ: a webhook may have come a little later than now.
    end, window = (now + 86400.0 if query.until is None else query.until), FIRST_WINDOW
    start = min(end, now)
    oldest = query.since or 0.0
    while True:
        start = max(oldest, start - window) if window < LAST_WINDOW else oldest
        asked = structs.replace(query, since=start, until=end, limit=limit - len(found))
        found += await store.find(asked)
        if start <= oldest or len(found) >= limit:
            return found, None
        if time.monotonic() - begun > SEARCH_WITHIN:
            return found, start
        end, window = start, 2 * window


async def rooms_now(store: Store) -> list[RoomNow]:
    """Read the rooms that have an open entry, and those of the newest webhooks; those with somebody in them first."""
    entries = await store.find_rooms(RoomQuery(open=True, limit=ROWS))
    newest = await store.find(Query(limit=LOOKED_AT))
    last: dict[str, float] = {}
    for record in newest:
        if record.room is not None:
            last.setdefault(record.room, record.received_at)
    open_by_key = {entry.key: entry for entry in entries}
    keys = list(dict.fromkeys([*open_by_key, *last]))[: 2 * ROWS]
    presences = await store.presences(frozenset(keys))
    rooms = [RoomNow(key, presences.get(key, UNKNOWN), open_by_key.get(key), last.get(key)) for key in keys]

    def order(room: RoomNow) -> tuple[bool, bool, float]:
        return room.entry is None, not room.presence.humans, -(room.last or 0.0)

    return sorted(rooms, key=order)[:ROWS]


async def room_page(store: Store, key: str, since: float | None, until: float | None, now: float) -> RoomPage:
    """Read what happened in a room: between two times, or at first in its newest meeting."""
    presence = (await store.presences(frozenset({key}))).get(key, UNKNOWN)
    entries = await store.find_rooms(RoomQuery(room=key, limit=50))
    last_runs = await store.find_runs(RunQuery(room=key, limit=1))
    chosen = since is not None or until is not None
    if until is None:
        until = now + 1 if chosen else _last_time(presence, entries, last_runs, now) + 600.0
    if since is None:
        since = until - MEETING
    records, back_to = await search(store, Query(room=key, since=since, until=until), HAPPENINGS + 1, now)
    more, records = len(records) > HAPPENINGS or back_to is not None, records[:HAPPENINGS]
    if back_to is not None:
        since = back_to
    elif more:
        since = records[-1].received_at
    runs = await store.find_runs(RunQuery(room=key, since=since, until=until, limit=100))
    if not chosen:
        since, until = _newest_meeting(records, runs, since, until, now)
        records = [record for record in records if since <= record.received_at < until]
        runs = [run for run in runs if run.started_at < until and (run.ended_at is None or run.ended_at >= since)]
    refusals: list[RefusalCount] = await store.refusals(since, until)
    # A run or a hold that goes on ends at now in the picture.
    end = max(since + 1.0, min(until, now + 1.0))
    told = timeline(key, since, end, records, runs, entries, refusals, RUN_KINDS)
    known = bool(records or runs or entries or presence.humans is not None)
    entry = entries[0] if entries else None
    return RoomPage(key, presence, entry, told, more, known)


def _last_time(presence: Presence, entries: list[Room], runs: list[RunRecord], now: float) -> float:
    times = [] if presence.changed_at is None else [presence.changed_at.timestamp()]
    times += [entry.since for entry in entries[:1]]
    times += [now if run.ended_at is None else run.ended_at for run in runs]
    return min(max(times, default=now), now)


def _newest_meeting(
    records: list[Record], runs: list[RunRecord], since: float, until: float, now: float
) -> tuple[float, float]:
    """Return the time of what happened last, back to the first pause; with a margin on either side."""
    points = [record.received_at for record in records] + [run.started_at for run in runs]
    points += [min(until, now) if run.ended_at is None else run.ended_at for run in runs]
    points = sorted((point for point in points if since <= point <= until), reverse=True)
    if not points:
        return since, until
    first = points[0]
    for point in points:
        if first - point > PAUSE:
            break
        first = point
    margin = max(20.0, (points[0] - first) * MARGIN)
    return first - margin, points[0] + margin


async def webhook_page(store: Store, id: str) -> WebhookPage | None:
    """Read a webhook, and the entries that it asked for, each with its runs; None if it is not stored."""
    found = await store.find(Query(ids=(id,)))
    if not found:
        return None
    record = found[0]
    rooms = await store.find_rooms(RoomQuery(webhooks=(record.id,)))
    if not rooms and record.state is State.FIRED and record.room is not None and record.decided_at is not None:
        at = record.decided_at
        rooms = await store.find_rooms(RoomQuery(room=record.room, since=at, until=at, limit=1))
    return WebhookPage(record, [(room, await store.find_runs(RunQuery(entry=room.id))) for room in rooms])


async def health_page(store: Store) -> HealthPage:
    """Read what waits, what is open, and what failed last."""
    workload = await store.workload()
    opened = await store.find_rooms(RoomQuery(open=True, limit=ROWS))
    newest = await store.find(Query(limit=1))
    entries = await store.rooms(limit=ROWS)
    failed = [room for room in entries if room.state == "failed"][:10]
    return HealthPage(workload, opened, failed, newest[0] if newest else None, _owners(opened))


def _owners(rooms: Iterable[Room]) -> list[str]:
    return sorted({room.owner for room in rooms if room.owner is not None})


async def refusals_of(store: Store, since: float, until: float) -> list[RefusalCount]:
    """Read the refusals of a time, oldest first."""
    return await store.refusals(since, until)
