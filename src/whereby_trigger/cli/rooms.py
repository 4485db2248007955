"""`whereby-trigger rooms`: who is where now, and what happened in a room; and the room that a person names."""

import asyncio
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable
from typing import Any

import click

from whereby_trigger import timeline
from whereby_trigger.cli.app import app_argument, app_option
from whereby_trigger.cli.options import LIMIT, json_option, store_option
from whereby_trigger.cli.output import Failed, local, note, show_lines, show_objects, show_table
from whereby_trigger.cli.runs import in_words
from whereby_trigger.cli.stores import settings_with_store, store_to_read
from whereby_trigger.cli.times import since_option, time_range, until_option
from whereby_trigger.config import Settings
from whereby_trigger.store import Presence, Room, RoomQuery, RoomStore, Store
from whereby_trigger.timeline import Entry, MeetingHistory, Timeline
from whereby_trigger.times import utc
from whereby_trigger.webhook import RoomIdentity, room_from_url, room_named, room_selected

AMBIGUOUS = 50
"""Entries of a name that are looked at for the room it means."""

HEADER = ("room", "humans", "bots", "since", "session", "assistant")
SHORT_ID = 12


@click.group()
def rooms() -> None:
    """See who is where now, and what happened in a room."""


@rooms.command("list")
@app_argument
@store_option
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="How many, latest first.")
@json_option
def list_(app: str | None, store: str | None, limit: int, as_json: bool) -> None:
    """List the rooms with somebody in them, or with an assistant.

    Humans and bots are counted by Whereby's newest webhook of each room, for programs that use these counts.
    """
    found = asyncio.run(_listed(settings_with_store(app, store).store, limit))
    if as_json:
        show_objects(_as_object(key, presence, room) for key, presence, room in found)
    elif found:
        short = sys.stdout.isatty()
        show_table([_as_row(key, presence, room, short=short) for key, presence, room in found], HEADER)
    if not found:
        note("Nobody is in any room, as far as is known, and no room has an assistant.")


@rooms.command()
@click.argument("room", metavar="ROOM")
@app_option
@store_option
@since_option
@until_option
@json_option
def show(room: str, app: str | None, store: str | None, since: str | None, until: str | None, as_json: bool) -> None:
    """Show what happened in a room, newest meeting first.

    It begins with what became of the newest meeting's assistant, or why there was none. ROOM is a URL, a key or a name.
    """
    room_selected(room)
    start, end = time_range(since, until)
    shown = asyncio.run(_shown(settings_with_store(app, store), room, start, end))
    if as_json:
        show_objects([timeline.as_object(shown)])
        return
    show_timeline(shown)
    if not shown.complete:
        note("There is more: name an earlier time with --until, or a shorter one with --since and --until.")


def show_timeline(shown: Timeline) -> None:
    """Print the answer, and each meeting with one line an entry."""
    show_lines(shown.key.removeprefix("/"), *_fitted(shown.answer))
    for meeting in shown.meetings:
        said = "" if meeting.answer in shown.answer else meeting.answer
        show_lines("", *_fitted(_heading(meeting)), *_fitted(said))
        show_table([(_time(entry, meeting), entry.words) for entry in meeting.entries])


def _fitted(sentence: str) -> list[str]:
    """Return a sentence in lines that fit a terminal; whole if a program reads it."""
    if not sys.stdout.isatty():
        return [sentence] if sentence else []
    return textwrap.wrap(sentence, shutil.get_terminal_size().columns, break_on_hyphens=False)


async def _listed(url: str, limit: int) -> list[tuple[str, Presence, Room | None]]:
    """Return rooms with who is there and their open entry, those where something changed last first."""
    async with store_to_read(url) as store:
        entries = {room.key: room for room in await store.find_rooms(RoomQuery(open=True, limit=limit))}
        there = await store.occupied(limit)
        there |= await store.presences(frozenset(entries) - frozenset(there))
    found = [(key, presence, entries.get(key)) for key, presence in there.items()]
    return sorted(found, key=lambda each: _changed(each[1], each[2]), reverse=True)[:limit]


def _changed(presence: Presence, room: Room | None) -> float:
    changed_at = 0.0 if presence.changed_at is None else presence.changed_at.timestamp()
    return max(changed_at, 0.0 if room is None else room.since)


async def _shown(settings: Settings, text: str, since: float | None, until: float | None) -> Timeline:
    async with store_to_read(settings.store) as store:
        key = await _key_in(store, text, settings.subdomain)
        return await timeline.of_room(store, key, since, until, now=time.time())


async def _key_in(store: Store, text: str, subdomain: str | None) -> str:
    """Return the key of the room that a text names, or the name if the store has nothing of such a room."""
    keys = await timeline.room_keys(store, text, subdomain)
    if len(keys) > 1:
        raise _several(text, keys)
    return keys[0] if keys else room_selected(text)


def _as_row(key: str, presence: Presence, room: Room | None, *, short: bool) -> tuple[str, ...]:
    since = "-" if presence.humans_since is None else local(presence.humans_since.timestamp())
    session = presence.session_id or "-"
    return (
        key,
        "-" if presence.humans is None else str(presence.humans),
        "-" if presence.bots is None else str(presence.bots),
        since[len("2026-") : len("2026-01-01 00:00:00")] if short and len(since) > 1 else since,
        session[:SHORT_ID] if short else session,
        "-" if room is None else in_words(room),
    )


def _as_object(key: str, presence: Presence, room: Room | None) -> dict[str, Any]:
    return {
        "room": key,
        "humans": presence.humans,
        "bots": presence.bots,
        "humans_since": None if presence.humans_since is None else utc(presence.humans_since.timestamp()),
        "changed_at": None if presence.changed_at is None else utc(presence.changed_at.timestamp()),
        "session_id": presence.session_id,
        "assistant": None
        if room is None
        else {
            "id": room.id,
            "state": room.state,
            "since": utc(room.since),
            "attempt": room.attempt,
            "replica": room.owner,
            "reason": room.reason or room.stop or "",
        },
    }


def _heading(meeting: MeetingHistory) -> str:
    began, ended = local(meeting.began), local(meeting.ended)
    if meeting.session_id is None:
        return f"Outside of a known meeting, from {began[:16]}"
    over = f"over {ended[11:16]}" if meeting.over else "not over, as far as is known"
    return f"Meeting of {began[:16]}, {over}, session {meeting.session_id}"


def _time(entry: Entry, meeting: MeetingHistory) -> str:
    """Return a local time of day, with its date if that is another than in the heading."""
    at, began = local(entry.at), local(meeting.began)
    return at[11:19] if at[:10] == began[:10] else at[:19]


async def room_in(store: RoomStore, text: str, subdomain: str | None) -> RoomIdentity:
    """Return the room that a text names, or to which a name belongs in the store.

    Raises Failed if it belongs to none there, or to several.
    """
    room = room_named(text, subdomain)
    if room is not None:
        return room
    keys = {entry.key for entry in await store.find_rooms(RoomQuery(room=room_selected(text), limit=AMBIGUOUS))}
    if not keys:
        raise Failed(
            f"no room named {text} has asked for an assistant yet: write its URL, like "
            "https://your-subdomain.whereby.com/your-room, or set subdomain"
        )
    if len(keys) > 1:
        raise _several(text, keys)
    return room_from_url(f"https://{keys.pop()}")


def _several(text: str, keys: Iterable[str]) -> Failed:
    return Failed(f"several rooms are named {text}: write one of {', '.join(sorted(keys))}")
