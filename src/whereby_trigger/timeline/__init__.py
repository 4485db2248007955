"""What happened in a room: webhooks, decisions, assistants, refusals and replicas, meeting by meeting.

`of_room` reads the store; all else is pure. `rooms show` and the inspector render what it returns.
"""

from math import inf
from typing import Any, Final

from msgspec import Struct

from whereby_trigger.store import ActionQuery, Query, RoomQuery, RoomStore, RunQuery, Store
from whereby_trigger.text import utc
from whereby_trigger.timeline.entries import Entry, Kind, action_in_words, people, run_in_words
from whereby_trigger.timeline.meetings import BEFORE, Blocks, Found, Replicas, answer_for, answer_of
from whereby_trigger.webhook import room_named, room_selected

__all__ = [
    "Entry",
    "Found",
    "Kind",
    "MeetingHistory",
    "Timeline",
    "action_in_words",
    "as_object",
    "assemble",
    "of_room",
    "people",
    "room_keys",
    "run_in_words",
]


WEBHOOKS: Final = 500
"""The newest webhooks of a room that are read, if no other limit is named."""

MOST: Final = 500
"""The newest entries of a room, and the newest runs, that are read."""

A_DAY: Final = 24 * 3600.0
"""Seconds before now of which refusals and replicas are read, if the room has no webhook."""


class MeetingHistory(Struct, frozen=True):
    """Hold what happened in one meeting, oldest first, and in one sentence what became of its assistant.

    `session_id` is None for what happened outside of every known session. `over` is True if the session's end has come.
    Times are seconds since the epoch.
    """

    session_id: str | None
    began: float
    ended: float
    over: bool
    answer: str
    entries: tuple[Entry, ...]


class Timeline(Struct, frozen=True):
    """Hold what happened in a room, newest meeting first, and the answer for the newest.

    `complete` is False if there was more than was read: then the oldest meetings are cut short or missing.
    """

    key: str
    answer: str
    meetings: tuple[MeetingHistory, ...]
    complete: bool


async def room_keys(store: RoomStore, text: str, subdomain: str | None) -> list[str]:
    """Return the key of the room that a text names; if it is a name alone, the keys of all such rooms in the store.

    Raises ConfigError if it cannot name a room.
    """
    room = room_named(text, subdomain)
    return await store.room_keys(room_selected(text)) if room is None else [room.key]


async def of_room(
    store: Store,
    key: str,
    since: float | None = None,
    until: float | None = None,
    *,
    now: float,
    limit: int = WEBHOOKS,
) -> Timeline:
    """Return what happened in the room with a key, from `since` until `until`, of at most `limit` webhooks.

    Without `since`, it begins with the oldest of the newest `limit` webhooks. Instead of a key, a name with its leading
    slash stands for a room of which the store has nothing: then there are only refusals and replicas.
    """
    if key.startswith("/"):
        return await _of_nothing(store, key, since, until, now=now)
    records = await store.find(Query(room=key, since=since, until=until, limit=limit))
    oldest = min((record.received_at for record in records), default=now)
    complete = len(records) < limit
    begin = oldest if since is None and not complete else since
    rooms = await store.find_rooms(RoomQuery(room=key, since=begin, until=until, limit=MOST))
    runs = await store.find_runs(RunQuery(room=key, since=begin, until=until, limit=MOST))
    complete = complete and max(len(rooms), len(runs)) < MOST
    if since is None:
        anything = min([oldest, *(room.queued_at for room in rooms)]) if records or rooms else now - A_DAY
        begin = anything - BEFORE
    else:
        begin = since
    end = now if until is None else until
    refusals, replicas = await store.refusals(begin, end), await store.find_replicas(begin, end)
    actions = await store.find_actions(ActionQuery(room=key, since=begin, until=until or inf, limit=MOST))
    newest = None
    if not records and not rooms and not runs:
        newest = next((record.received_at for record in await store.find(Query(room=key, limit=1))), None)
    found = Found(records, rooms, runs, refusals, replicas, actions, newest)
    return assemble(key, found, since, until, now=now, complete=complete)


async def _of_nothing(store: Store, name: str, since: float | None, until: float | None, *, now: float) -> Timeline:
    begin, end = now - A_DAY if since is None else since, now if until is None else until
    refusals, replicas = await store.refusals(begin, end), await store.find_replicas(begin, end)
    return assemble(name, Found(refusals=refusals, replicas=replicas), since, until, now=now)


def assemble(
    key: str,
    found: Found,
    since: float | None = None,
    until: float | None = None,
    *,
    now: float,
    complete: bool = True,
) -> Timeline:
    """Put what was found in order, meeting by meeting. Pure: `now` is the time for which the answers hold."""
    blocks = Blocks(key, found, since, now).newest_first
    replicas = Replicas(found.replicas, now)
    meetings = tuple(
        MeetingHistory(
            block.session_id, block.began, block.ended, block.over, answer_of(block, replicas), block.entries
        )
        for block in blocks
    )
    begin, end = now - A_DAY if since is None else since, now if until is None else until
    limited = since is not None or until is not None
    return Timeline(key, answer_for(blocks, replicas, begin, end, found.newest, limited=limited), meetings, complete)


def as_object(shown: Timeline) -> dict[str, Any]:
    """Return a timeline with its times in UTC."""
    return {
        "room": shown.key,
        "answer": shown.answer,
        "complete": shown.complete,
        "meetings": [
            {
                "session_id": meeting.session_id,
                "began": utc(meeting.began),
                "ended": utc(meeting.ended),
                "over": meeting.over,
                "answer": meeting.answer,
                "entries": [_entry_as_object(entry) for entry in meeting.entries],
            }
            for meeting in shown.meetings
        ],
    }


def _entry_as_object(entry: Entry) -> dict[str, Any]:
    times = {name: utc(value) for name, value in entry.fields.items() if name.endswith("_at") and value is not None}
    return {
        "at": utc(entry.at),
        "until": None if entry.until is None else utc(entry.until),
        "kind": entry.kind,
        "words": entry.words,
        **entry.fields,
        **times,
    }
