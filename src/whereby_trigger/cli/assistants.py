"""`whereby-trigger assistants`: list and show the rooms that asked for an assistant; start and stop one by hand."""

import asyncio
import sys
import time
from contextlib import aclosing
from typing import Any

import click

from whereby_trigger.assist import request_for
from whereby_trigger.cli.app import app_argument, app_option
from whereby_trigger.cli.options import LIMIT, json_option, store_option
from whereby_trigger.cli.output import Failed, local, note, show_lines, show_objects, show_table, utc
from whereby_trigger.cli.stores import settings_with_store, store_to_change, store_to_read
from whereby_trigger.store import Room, RoomClaim, RoomState, every_room
from whereby_trigger.webhook import room_from_url

HEADER = ("since", "room", "state", "owner", "pid", "attempt", "reason")
SHORT_OWNER = 8
OVER = (RoomState.ENDED, RoomState.FAILED)

room_argument = click.argument("room_url")
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
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=LIMIT,
    show_default=True,
    help="How many, newest first; all rooms whose assistant has not ended are listed as well.",
)
@json_option
def list_(app: str | None, store: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List the rooms that asked for an assistant, newest first.

    The list covers all replicas that share the store.
    """
    rooms = asyncio.run(_listed(settings_with_store(app, store).store, state, limit))
    if as_json:
        show_objects(map(_as_object, rooms))
    elif rooms:
        show_table([_as_row(room, short=sys.stdout.isatty()) for room in rooms], HEADER)
    if not rooms:
        note("No such room is stored.")


@assistants.command()
@room_argument
@app_option
@store_option
@json_option
def show(room_url: str, app: str | None, store: str | None, as_json: bool) -> None:
    """Show all about a room's last assistant.

    This includes what it raised or wrote to stderr.
    """
    key = room_from_url(room_url).key
    room = asyncio.run(_newest(settings_with_store(app, store).store, key))
    if room is None:
        raise Failed(
            f"the store has no entry of {key}: it never asked for an assistant, or retention has passed; "
            "see `assistants list`"
        )
    if as_json:
        show_objects([_as_full_object(room)])
    else:
        show_lines(*_as_lines(room))


@assistants.command()
@room_argument
@app_option
@store_option
def start(room_url: str, app: str | None, store: str | None) -> None:
    """Ask for an assistant in a room by hand.

    A trigger that runs on the same store starts it.
    """
    room = room_from_url(room_url)
    show_lines(f"{room.key} {_claimed(asyncio.run(_request(settings_with_store(app, store).store, room_url)))}")


@assistants.command()
@room_argument
@app_option
@store_option
def stop(room_url: str, app: str | None, store: str | None) -> None:
    """Ask a room's assistant to leave, on any replica.

    Exits with 1 if the room has none.
    """
    key = room_from_url(room_url).key
    state = asyncio.run(_stop(settings_with_store(app, store).store, key))
    if state is None:
        raise Failed(f"{key} has no assistant and does not wait for one: see `assistants list`")
    show_lines(f"{key} {_stopped(state)}")


async def _listed(url: str, state: str | None, limit: int) -> list[Room]:
    """Read the newest `limit` rooms in a state, and all others whose assistant has not ended."""
    listed: list[Room] = []
    matching = 0
    async with store_to_read(url) as store:
        async for room in every_room(store):
            if state is None or room.state == state:
                if matching < limit or room.state not in OVER:
                    listed.append(room)
                matching += 1
    return listed


async def _newest(url: str, key: str) -> Room | None:
    async with store_to_read(url) as store, aclosing(every_room(store)) as rooms:
        async for room in rooms:
            if room.key == key:
                return room
    return None


async def _request(url: str, room_url: str) -> RoomClaim:
    request = request_for(room_from_url(room_url), None, time.time())
    async with store_to_change(url) as store:
        return await store.request(request)


async def _stop(url: str, key: str) -> RoomState | None:
    async with store_to_change(url) as store:
        return await store.stop(key, "stopped by hand")


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
        "room": room.key,
        "state": room.state,
        "owner": room.owner,
        "pid": room.pid,
        "since": utc(room.since),
        "attempt": room.attempt,
        "reason": _reason(room),
        "webhook": room.webhook,
    }


def _as_full_object(room: Room) -> dict[str, Any]:
    return _as_object(room) | {"url": room.url, "restarts": room.restarts, "errors": list(room.errors)}


def _as_lines(room: Room) -> list[str]:
    fields = [
        ("room", room.key),
        ("state", room.state),
        ("reason", _reason(room) or "-"),
        ("owner", room.owner or "-"),
        ("pid", "-" if room.pid is None else str(room.pid)),
        ("attempt", str(room.attempt)),
        ("restarts", str(room.restarts)),
        ("since", local(room.since)),
        ("webhook", room.webhook or "by hand"),
    ]
    errors = [line for error in room.errors for line in ("", *error.splitlines())]
    return [*(f"{name:<11} {value}" for name, value in fields), *errors]
