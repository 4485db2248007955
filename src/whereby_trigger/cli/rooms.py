"""`whereby-trigger rooms`: who is where now, what happened in a room, and rooms and runs as people read them."""

import asyncio
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable
from typing import Any

import click

from whereby_trigger import timeline
from whereby_trigger.cli.arguments import (
    LIMIT,
    app_argument,
    app_option,
    json_option,
    settings_with_store,
    since_option,
    store_option,
    store_to_read,
    time_range,
    until_option,
)
from whereby_trigger.cli.output import Failed, local, note, show_lines, show_objects, show_table
from whereby_trigger.config import Settings
from whereby_trigger.store import Presence, Room, RoomQuery, RoomState, RoomStore, RunOutcome, RunRecord, Store
from whereby_trigger.text import utc
from whereby_trigger.timeline import Entry, MeetingHistory, Timeline
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
        # All of them: in which rooms something changed last, their times alone do not tell.
        entries = {room.key: room for room in await store.find_rooms(RoomQuery(open=True))}
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


NOT_RECORDED = "its end was not recorded"


def in_words(room: Room) -> str:
    """Return what has become of an entry, for the end of a sentence that begins with its assistant."""
    reason = room.reason or room.stop or ""
    told = f": {reason}" if reason else ""
    match room.state:
        case RoomState.WAITING:
            return f"waits{told}" if room.attempt else "waits for an assistant"
        case RoomState.STARTING:
            return f"starts, attempt {room.attempt}"
        case RoomState.LIVE:
            return "is live" if room.attempt == 1 else f"is live, attempt {room.attempt}"
        case RoomState.ENDING:
            return f"is ending{told}"
        case RoomState.ENDED:
            return f"ended{told}" if room.attempt else f"never started{told}"
        case RoomState.FAILED:
            return f"failed{told}"


def end_in_words(run: RunRecord, room: Room | None) -> str:
    """Return how a run ended, or that it goes on; `room` is its entry."""
    if run.outcome is None:
        goes_on = room is not None and (room.owner, room.attempt) == (run.replica, run.attempt)
        return "is not over" if goes_on else NOT_RECORDED
    if run.outcome in (RunOutcome.FAILED, RunOutcome.REFUSED, RunOutcome.EXHAUSTED, RunOutcome.REPLICA_DIED):
        return run.reason
    how = [f"exited with {run.exit_code}"] if run.exit_code else []
    how += [f"ended by signal {run.signal}"] if run.signal is not None else []
    how += [f"raised {run.exception}"] if run.exception is not None else []
    return f"{run.outcome}: {', '.join([run.reason, *how])}"


def run_as_line(run: RunRecord, room: Room | None) -> str:
    """Return a run in one line, with times of day."""
    parts = [f"run {run.id}", f"attempt {run.attempt}", f"started {local(run.started_at)}"]
    if run.live_at is not None:
        parts.append(f"live {_clock(run.live_at)}")
    if run.ended_at is not None:
        parts.append(f"over {_clock(run.ended_at)}")
    return f"{', '.join(parts)}: {end_in_words(run, room)}"


def run_as_lines(run: RunRecord, room: Room) -> list[str]:
    """Return all about a run; what it raised or wrote is set off, so that it cannot be taken for ours."""
    seen = {
        "replica": run.replica,
        "pid": run.pid,
        "exit code": run.exit_code,
        "signal": run.signal,
        "exception": run.exception,
    }
    told = ", ".join(f"{name} {value}" for name, value in seen.items() if value is not None)
    output = [f"  | {line}" for line in run.output.splitlines()]
    return ["", run_as_line(run, room), *([f"  {told}"] if told else []), *output]


def run_as_object(run: RunRecord) -> dict[str, Any]:
    """Return all fields of a run, including what it raised or wrote."""
    return {
        "id": run.id,
        "attempt": run.attempt,
        "replica": run.replica,
        "pid": run.pid,
        "started_at": utc(run.started_at),
        "live_at": None if run.live_at is None else utc(run.live_at),
        "ended_at": None if run.ended_at is None else utc(run.ended_at),
        "outcome": run.outcome,
        "reason": run.reason,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "exception": run.exception,
        "output": run.output,
    }


def entry_as_object(room: Room) -> dict[str, Any]:
    """Return what has become of an entry."""
    return {
        "id": room.id,
        "state": room.state,
        "attempt": room.attempt,
        "reason": room.reason or room.stop or "",
        "webhook": room.webhook,
    }


def entry_as_lines(room: Room, runs: Iterable[RunRecord]) -> list[str]:
    """Return an entry and its runs, a line each."""
    return [f"entry {room.id} {in_words(room)}", *(f"  {run_as_line(run, room)}" for run in runs)]


def _clock(moment: float) -> str:
    return local(moment)[len("2026-01-01 ") : len("2026-01-01 22:14:07")]
