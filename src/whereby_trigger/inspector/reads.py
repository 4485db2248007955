"""What a page was asked to show, and what it reads from the store: a few bounded queries.

Each is found by an index, but for the rooms that hold somebody: there is one row a room.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Final

from msgspec import Struct, structs

from whereby_trigger import timeline
from whereby_trigger.errors import ConfigError
from whereby_trigger.store import (
    UNKNOWN,
    ActionQuery,
    ActionRecord,
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
from whereby_trigger.text import storable_text, time_range
from whereby_trigger.timeline import Entry, Kind, MeetingHistory
from whereby_trigger.webhook import is_selected, room_selected

ROWS: Final = 100
"""Rows of a page: with their words, some 60 KB."""

HAPPENINGS: Final = 150
"""Webhooks that a room's page shows."""

SHOWN: Final = 600
"""Newest entries that a room's page shows, whatever they are: a replica that starts again every few seconds makes
thousands, and to write them takes the event loop a second.
"""

LOOKED_AT: Final = 400
"""Newest webhooks among which the rooms of now are found."""

LOOK_BACK: Final = 6 * 3600.0
"""Seconds that a room's page looks back at first, from the last time that something happened there."""

BESIDE: Final = frozenset({Kind.REFUSED, Kind.REPLICA, Kind.ACTED})
"""What a timeline tells that makes no meeting: it happened to all rooms, or was done by hand."""

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


LONGEST: Final = 2048
"""Characters of a parameter that are read."""


class Filters(Struct, frozen=True):
    """Select deliveries: what was typed, and what it means. `wrong` says which of it means nothing."""

    room: str = ""
    type: str = ""
    state: str = ""
    since: str = ""
    until: str = ""
    wrong: tuple[str, ...] = ()
    selected: Query = Query()

    @property
    def any(self) -> bool:
        return bool(self.room or self.type or self.state or self.since or self.until)

    def matches(self, record: Record) -> bool:
        """Return True if a delivery is one of those selected, whenever it came."""
        query = self.selected
        if query.state is not None and record.state is not query.state:
            return False
        if query.type is not None and record.type != query.type:
            return False
        if query.room is None:
            return True
        return record.room is not None and is_selected(record.room, query.room)


def filters_of(parameters: Mapping[str, str], now: float) -> Filters:
    """Read the filters of an address; `now` is in seconds since the epoch."""
    typed = {
        name: storable_text(parameters.get(name, "").strip()[:LONGEST])
        for name in ("room", "type", "state", "since", "until")
    }
    wrong: list[str] = []
    room = None
    if typed["room"]:
        try:
            room = room_selected(typed["room"])
        except ConfigError:
            wrong.append("room is a name, a key or a URL like https://your-subdomain.whereby.com/your-room")
    state = None
    if typed["state"]:
        if typed["state"] in set(State):
            state = State(typed["state"])
        else:
            wrong.append("there is no such state")
    since = until = None
    try:
        since, until = time_range(typed["since"] or None, typed["until"] or None, _local(now))
    except ConfigError as error:
        wrong.append(str(error))
    query = Query(room=room, type=typed["type"] or None, state=state, since=since, until=until)
    return Filters(**typed, wrong=tuple(wrong), selected=query)


def _local(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC).astimezone()


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


class RoomsPage(Struct, frozen=True):
    """Hold the rooms of now; `more` is True if there are others that hold somebody or have an assistant."""

    rooms: list[RoomNow]
    more: bool


class ShownEntry(Struct, frozen=True):
    """Hold an entry of a timeline, and the anchor of its line, to which its mark in the picture leads."""

    anchor: str
    entry: Entry


class ShownMeeting(Struct, frozen=True):
    """Hold what a page shows of a meeting, oldest first."""

    history: MeetingHistory
    entries: tuple[ShownEntry, ...]


class RoomPage(Struct, frozen=True):
    """Hold what happened in a room between two times, newest meeting first; `more` is True if some is left out."""

    key: str
    presence: Presence
    entry: Room | None
    since: float
    until: float
    answer: str
    meetings: tuple[ShownMeeting, ...]
    more: bool
    known: bool

    @property
    def entries(self) -> list[ShownEntry]:
        """All entries, oldest first."""
        return sorted((one for meeting in self.meetings for one in meeting.entries), key=lambda one: one.entry.at)


class WebhookPage(Struct, frozen=True):
    """Hold a webhook, the entries that it asked for with their runs, and what people did to it, newest first."""

    record: Record
    assistants: list[tuple[Room, list[RunRecord]]]
    actions: list[ActionRecord]


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
    query, back_to = await _of_one_room(store, filters.selected), None
    if query.room is None and query.type is None and query.state is None:
        found = await store.find(structs.replace(query, limit=ROWS + 1))
    else:
        found, back_to = await search(store, query, ROWS + 1, now)
    stored = bool(found) or bool(await store.newest())
    return LivePage(found[:ROWS], len(found) > ROWS, stored, back_to)


async def _of_one_room(store: Store, query: Query) -> Query:
    """Return a query with a room's key instead of its name, if only one room has it: a key is found by an index."""
    if query.room is None or not query.room.startswith("/"):
        return query
    keys = await store.room_keys(query.room)
    return structs.replace(query, room=keys[0]) if len(keys) == 1 else query


async def search(store: Store, query: Query, limit: int, now: float) -> tuple[list[Record], float | None]:
    """Return the newest `limit` webhooks that match, and the time back to which was searched, or None if to the end.

    A room and times are found by an index, and what else a query asks for may not be. So without a room this looks back
    in windows, each twice as long as the one before, until it has found enough or time is up.
    """
    if query.room is not None and not query.room.startswith("/"):
        return await store.find(structs.replace(query, limit=limit)), None
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


async def rooms_now(store: Store) -> RoomsPage:
    """Read the rooms that have an open entry, hold somebody, or had one of the newest webhooks, in this order."""
    entries = await store.find_rooms(RoomQuery(open=True, limit=ROWS + 1))
    there = await store.occupied(ROWS + 1)
    newest = await store.find(Query(limit=LOOKED_AT))
    last: dict[str, float] = {}
    for record in newest:
        if record.room is not None:
            last.setdefault(record.room, record.received_at)
    open_by_key = {entry.key: entry for entry in entries}
    keys = list(dict.fromkeys([*open_by_key, *there, *last]))[: 2 * ROWS]
    presences = there | await store.presences(frozenset(keys) - there.keys())
    rooms = [RoomNow(key, presences.get(key, UNKNOWN), open_by_key.get(key), last.get(key)) for key in keys]

    def order(room: RoomNow) -> tuple[bool, bool, float]:
        return room.entry is None, not room.presence.humans, -(room.last or 0.0)

    more = len(open_by_key.keys() | there.keys()) > ROWS
    return RoomsPage(sorted(rooms, key=order)[:ROWS], more)


async def room_key(store: Store, text: str) -> str:
    """Return the key of the room that an address names by its key, its URL or its name.

    Raises ConfigError if it names none, or several.
    """
    host, slash, _ = text.partition("/")
    if slash and "." in host:
        # As a page that leads here wrote it: stored keys are never changed.
        return text
    keys = await timeline.room_keys(store, text, None)
    if len(keys) > 1:
        raise ConfigError(f"several rooms have this name: {', '.join(keys)}")
    return keys[0] if keys else text


async def room_page(store: Store, key: str, since: float | None, until: float | None, now: float) -> RoomPage:
    """Read what happened in a room: between two times, or at first in its newest meeting."""
    presence = (await store.presences(frozenset({key}))).get(key, UNKNOWN)
    entries = await store.find_rooms(RoomQuery(room=key, limit=1))
    chosen = since is not None or until is not None
    end = now + 1.0 if until is None else until
    begin = since
    if begin is None:
        newest = end if chosen else await _last_time(store, key, presence, entries, now)
        begin = newest - LOOK_BACK
    told = await timeline.of_room(store, key, begin, end, now=now, limit=HAPPENINGS)
    if not chosen:
        begin, end = _newest_meeting(told.meetings, begin, end, now)
    elif not told.complete:
        begin = min((entry.at for meeting in told.meetings for entry in meeting.entries), default=begin)
    # A run or a hold that goes on ends at now in the picture.
    end = max(begin + 1.0, min(end, now + 1.0))
    meetings = tuple(_shown(told.meetings, begin, end))
    times = sorted(one.entry.at for meeting in meetings for one in meeting.entries)
    if len(times) > SHOWN:
        begin = times[-SHOWN]
        meetings = tuple(_shown(told.meetings, begin, end))
    known = bool(entries or presence.humans is not None or any(map(_is_of_room, told.meetings)))
    # Perhaps it has webhooks of another time.
    known = known or bool(await store.find(Query(room=key, limit=1)))
    answer = told.answer if chosen or not meetings else meetings[0].history.answer or told.answer
    entry = entries[0] if entries else None
    more = not told.complete or len(times) > SHOWN
    return RoomPage(key, presence, entry, begin, end, answer, meetings, more, known)


def _shown(meetings: Sequence[MeetingHistory], begin: float, end: float) -> Iterator[ShownMeeting]:
    number = count()
    for meeting in meetings:
        entries = [entry for entry in meeting.entries if begin <= entry.at <= end or _goes_on(entry, begin, end)]
        if entries:
            yield ShownMeeting(meeting, tuple(ShownEntry(f"h-{next(number)}", entry) for entry in entries))


def _goes_on(entry: Entry, begin: float, end: float) -> bool:
    """Return True if an entry is a run that began before a time, and was not over then."""
    return entry.kind is Kind.STARTED and entry.at < end and (entry.until is None or entry.until >= begin)


def _is_of_room(meeting: MeetingHistory) -> bool:
    return any(entry.kind not in BESIDE for entry in meeting.entries)


async def _last_time(store: Store, key: str, presence: Presence, entries: Sequence[Room], now: float) -> float:
    """Return when something happened last in a room, as far as is known without reading its webhooks' times."""
    records = await store.find(Query(room=key, limit=1))
    runs = await store.find_runs(RunQuery(room=key, limit=1))
    times = [] if presence.changed_at is None else [presence.changed_at.timestamp()]
    times += [record.received_at for record in records] + [entry.since for entry in entries]
    times += [now if run.ended_at is None else run.ended_at for run in runs]
    return min(max(times, default=now), now)


def _newest_meeting(meetings: Sequence[MeetingHistory], begin: float, end: float, now: float) -> tuple[float, float]:
    """Return the time of the newest meeting, back to the first pause; with a margin on either side."""
    newest = next(filter(_is_of_room, meetings), None)
    if newest is None:
        return begin, end
    points = [entry.at for entry in newest.entries]
    points += [min(end, now) if entry.until is None else entry.until for entry in newest.entries if _is_run(entry)]
    first = last = max(points)
    for point in sorted(points, reverse=True):
        if first - point > PAUSE:
            break
        first = point
    margin = max(20.0, (last - first) * MARGIN)
    return first - margin, last + margin


def _is_run(entry: Entry) -> bool:
    return entry.kind is Kind.STARTED


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
    runs = [(room, await store.find_runs(RunQuery(entry=room.id))) for room in rooms]
    return WebhookPage(record, runs, await store.find_actions(ActionQuery(webhook=record.id, limit=ROWS)))


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


class ReasonCount(Struct, frozen=True):
    """Count the refusals for one reason; `last` is the minute of the last one."""

    reason: str
    status: int
    count: int
    last: float


def by_reason(counts: Sequence[RefusalCount]) -> list[ReasonCount]:
    """Return how many deliveries were refused for each reason, the most frequent first."""
    totals: Counter[tuple[str, int]] = Counter()
    last: dict[tuple[str, int], int] = {}
    for one in counts:
        what = (one.reason, one.status)
        totals[what] += one.count
        last[what] = max(one.minute, last.get(what, 0))
    return [ReasonCount(*what, count, last[what]) for what, count in totals.most_common()]


def by_hour(counts: Sequence[RefusalCount], until: float) -> list[int]:
    """Return how many deliveries were refused in each of the 24 hours before a time, oldest first."""
    hours = [0] * 24
    for one in counts:
        ago = int((until - one.minute) // 3600)
        if 0 <= ago < 24:
            hours[23 - ago] += one.count
    return hours
