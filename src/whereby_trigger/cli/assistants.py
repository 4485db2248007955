"""`whereby-trigger assistants`: list and show the rooms that asked for an assistant; start and stop one by hand."""

import asyncio
import sys
import time
from typing import Any

import click
from msgspec import structs

from whereby_trigger.assist import request_for
from whereby_trigger.cli.arguments import (
    LIMIT,
    app_argument,
    app_option,
    json_option,
    room_option,
    settings_with_store,
    since_option,
    store_option,
    store_to_change,
    store_to_read,
    time_range,
    until_option,
)
from whereby_trigger.cli.output import Failed, local, note, show_lines, show_objects, show_table
from whereby_trigger.cli.rooms import room_in, run_as_lines, run_as_object
from whereby_trigger.config import Settings
from whereby_trigger.store import Room, RoomClaim, RoomQuery, RoomState, RoomStore, RunQuery, RunRecord
from whereby_trigger.text import utc
from whereby_trigger.webhook import RoomIdentity, room_named, room_selected

HEADER = ("id", "since", "room", "state", "owner", "pid", "attempt", "reason")
SHORT_OWNER = 8
EARLIER = 6
"""Entries of a room that `show` looks at: the newest, and the earlier ones that it names."""

room_argument = click.argument("room", metavar="ROOM")
state_option = click.option(
    "--state", type=click.Choice([str(state) for state in RoomState]), help="Only rooms in this state."
)


@click.group()
def assistants() -> None:
    """See which rooms have an assistant; start or stop one."""


@assistants.command("list")
@app_argument
@store_option
@state_option
@room_option
@since_option
@until_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=LIMIT,
    show_default=True,
    help="How many, newest first; all rooms whose assistant has not ended are listed as well.",
)
@json_option
def list_(
    app: str | None,
    store: str | None,
    state: str | None,
    room: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the rooms that asked for an assistant, newest first.

    The list covers all replicas that share the store. With --since or --until, it has what waited, ran or ended then.
    """
    start, end = time_range(since, until)
    query = RoomQuery(
        room=None if room is None else room_selected(room),
        state=None if state is None else RoomState(state),
        since=start,
        until=end,
        limit=limit,
    )
    rooms = asyncio.run(_listed(settings_with_store(app, store).store, query))
    if as_json:
        show_objects(map(_as_object, rooms))
    elif rooms:
        show_table([_as_row(room, short=sys.stdout.isatty()) for room in rooms], HEADER)
    if not rooms:
        note("No such room is stored.")


@assistants.command()
@click.argument("room", metavar="ROOM|ID")
@app_option
@store_option
@json_option
def show(room: str, app: str | None, store: str | None, as_json: bool) -> None:
    """Show all about a room's last assistant, or the one with an ID.

    This includes each of its runs, and what it raised or wrote to stderr. ROOM is a URL, a key or a name; an ID is a
    number, as `assistants list` shows it.
    """
    if not room.isdecimal():
        # A URL of no room is a wrong call, whatever is in the store.
        room_selected(room)
    found, runs, earlier = asyncio.run(_shown(settings_with_store(app, store), room))
    if as_json:
        show_objects([_as_full_object(found, runs)])
    else:
        show_lines(*_as_lines(found, runs, earlier))


@assistants.command()
@room_argument
@app_option
@store_option
def start(room: str, app: str | None, store: str | None) -> None:
    """Ask for an assistant in a room by hand.

    A trigger that runs on the same store starts it. ROOM is a URL, a key or a name.
    """
    key, claim = asyncio.run(_request(_settings_for(room, app, store), room))
    show_lines(f"{key} {_claimed(claim)}")


@assistants.command()
@room_argument
@app_option
@store_option
def stop(room: str, app: str | None, store: str | None) -> None:
    """Ask a room's assistant to leave, on any replica.

    Exits with 1 if the room has none. ROOM is a URL, a key or a name.
    """
    key, state = asyncio.run(_stop(_settings_for(room, app, store), room))
    if state is None:
        raise Failed(f"{key} has no assistant and does not wait for one: see `assistants list`")
    show_lines(f"{key} {_stopped(state)}")


def _settings_for(room: str, app: str | None, store: str | None) -> Settings:
    # A URL of no room is a wrong call, whatever the settings are.
    room_named(room, None)
    return settings_with_store(app, store)


async def _listed(url: str, query: RoomQuery) -> list[Room]:
    """Read the newest rooms that match, and all others that match and whose assistant has not ended."""
    async with store_to_read(url) as store:
        newest = await store.find_rooms(query)
        unended = await store.find_rooms(structs.replace(query, open=True, limit=None))
    return sorted({room.id: room for room in (*newest, *unended)}.values(), key=lambda room: -room.id)


async def _shown(settings: Settings, text: str) -> tuple[Room, list[RunRecord], list[Room]]:
    """Read an entry, its runs, and the room's earlier entries; raises Failed if there is none."""
    async with store_to_read(settings.store) as store:
        entries = await store.find_rooms(RoomQuery(id=int(text))) if _is_id(text) else []
        entries = entries or await store.find_rooms(RoomQuery(room=room_selected(text), limit=EARLIER))
        if not entries:
            raise Failed(
                f"the store has no entry of {text}: it never asked for an assistant, or retention has passed; "
                "see `assistants list`"
            )
        runs = await store.find_runs(RunQuery(entry=entries[0].id))
    return entries[0], runs, entries[1:]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len("9223372036854775807") - 1


async def _request(settings: Settings, text: str) -> tuple[str, RoomClaim]:
    async with store_to_change(settings.store) as store:
        room = await _room(store, settings, text)
        return room.key, await store.request(request_for(room, None, time.time()))


async def _stop(settings: Settings, text: str) -> tuple[str, RoomState | None]:
    async with store_to_change(settings.store) as store:
        room = await _room(store, settings, text)
        return room.key, await store.stop(room.key, "stopped by whereby-trigger assistants stop")


async def _room(store: RoomStore, settings: Settings, text: str) -> RoomIdentity:
    return await room_in(store, text, settings.subdomain)


def _claimed(claim: RoomClaim) -> str:
    if claim.new:
        return "waits for an assistant: one starts as soon as a trigger on this store has a free slot"
    if claim.state is RoomState.WAITING:
        return "already waits for an assistant"
    if claim.state is RoomState.ENDING:
        return "has an assistant that is ending: another starts after it"
    return f"already has an assistant: {claim.state}, on replica {claim.owner}"


def _stopped(state: RoomState) -> str:
    if state is RoomState.WAITING:
        return "was waiting for an assistant: it no longer waits"
    if state is RoomState.ENDING:
        return "was already ending: no other assistant starts after it"
    return f"was {state}: its assistant has been asked to leave within stop_grace"


def _reason(room: Room) -> str:
    return room.reason or room.stop or ""


def _as_row(room: Room, *, short: bool) -> tuple[str, ...]:
    since, owner = local(room.since), room.owner or "-"
    return (
        str(room.id),
        since[len("2026-") : len("2026-01-01 00:00:00")] if short else since,
        room.key,
        room.state,
        owner[:SHORT_OWNER] if short else owner,
        "-" if room.pid is None else str(room.pid),
        str(room.attempt),
        _reason(room),
    )


def _as_object(room: Room) -> dict[str, Any]:
    """Return the fields for a list: nothing that an assistant wrote."""
    return {
        "id": room.id,
        "room": room.key,
        "state": room.state,
        "owner": room.owner,
        "pid": room.pid,
        "since": utc(room.since),
        "attempt": room.attempt,
        "reason": _reason(room),
        "webhook": room.webhook,
    }


def _as_full_object(room: Room, runs: list[RunRecord]) -> dict[str, Any]:
    return _as_object(room) | {
        "url": room.url,
        "asked_at": utc(room.queued_at),
        "restarts": room.restarts,
        "runs": [run_as_object(run) for run in runs],
    }


def _as_lines(room: Room, runs: list[RunRecord], earlier: list[Room]) -> list[str]:
    fields = [
        ("id", str(room.id)),
        ("room", room.key),
        ("state", room.state),
        ("reason", _reason(room) or "-"),
        ("owner", room.owner or "-"),
        ("pid", "-" if room.pid is None else str(room.pid)),
        ("attempt", str(room.attempt)),
        ("restarts", str(room.restarts)),
        ("asked for", local(room.queued_at)),
        ("since", local(room.since)),
        ("webhook", room.webhook or "by hand"),
    ]
    lines = [f"{name:<11} {value}" for name, value in fields]
    if earlier:
        ids = ", ".join(str(one.id) for one in earlier)
        lines.append(f"{'earlier':<11} {ids}: see `assistants show ID`")
    for run in runs:
        lines += run_as_lines(run, room)
    return lines
