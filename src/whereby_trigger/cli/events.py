"""`whereby-trigger events`: list, show and replay the stored webhooks."""

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import quote

import click

from whereby_trigger.cli.app import app_argument, app_option
from whereby_trigger.cli.options import LIMIT, json_option, store_option
from whereby_trigger.cli.output import Failed, local, note, show_lines, show_objects, show_table, utc
from whereby_trigger.cli.stores import settings_with_store, store_to_change, store_to_read
from whereby_trigger.decide.predicates import did_you_mean
from whereby_trigger.store import Query, Record, State, Store
from whereby_trigger.text import printable
from whereby_trigger.webhook import WEBHOOK_TYPES, room_from_url

HEADER = ("received", "id", "type", "room", "state", "reason")
SHORT_ID = 12
AMBIGUOUS = 3

state_option = click.option(
    "--state", type=click.Choice([str(state) for state in State]), help="Only webhooks in this state."
)
room_option = click.option("--room", metavar="ROOM", help="Only webhooks of this room: a URL, a key or a name.")
type_option = click.option("--type", metavar="TYPE", help="Only webhooks of this type.")


@click.group()
def events() -> None:
    """List, show or replay stored webhooks and their decisions."""


@events.command("list")
@app_argument
@store_option
@state_option
@room_option
@type_option
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="How many, newest first.")
@json_option
def list_(
    app: str | None,
    store: str | None,
    state: str | None,
    room: str | None,
    type: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List stored webhooks, newest first, without their bodies."""
    query = Query(state=_state(state), room=_room(room), type=type, limit=limit)
    records = asyncio.run(_find(settings_with_store(app, store).store, query))
    if as_json:
        show_objects(map(_as_object, records))
    elif records:
        show_table([_as_row(record, short=sys.stdout.isatty()) for record in records], HEADER)
    if not records:
        note(_nothing_found(type))


@events.command()
@click.argument("id")
@app_option
@store_option
@json_option
def show(id: str, app: str | None, store: str | None, as_json: bool) -> None:
    """Show all about one webhook, including its body.

    The first characters of its ID are enough.
    """
    record = asyncio.run(_find_one(settings_with_store(app, store).store, id))
    if as_json:
        show_objects([_as_full_object(record)])
    else:
        show_lines(*_as_lines(record))


@events.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@app_option
@store_option
@state_option
@room_option
@type_option
@json_option
def replay(
    ids: tuple[str, ...],
    app: str | None,
    store: str | None,
    state: str | None,
    room: str | None,
    type: str | None,
    as_json: bool,
) -> None:
    """Replay decided or held webhooks: those named, or those selected.

    Each is decided again, at any age; a hold begins again.
    """
    if not ids and not (state or room or type):
        raise click.UsageError("name the webhooks to replay by ID, or select them, e.g. --state failed")
    url = settings_with_store(app, store).store
    query = Query(state=_state(state), room=_room(room), type=type)
    replayed = asyncio.run(_replay(url, ids, query))
    if as_json:
        show_objects({"id": id} for id in replayed)
    else:
        show_lines(*replayed)
    note(_replayed(len(replayed)))


async def _find(url: str, query: Query) -> list[Record]:
    async with store_to_read(url) as store:
        return await store.find(query)


async def _find_one(url: str, prefix: str) -> Record:
    async with store_to_read(url) as store:
        return await _resolve(store, prefix)


async def _replay(url: str, prefixes: tuple[str, ...], query: Query) -> list[str]:
    async with store_to_change(url) as store:
        if prefixes:
            ids = tuple([(await _resolve(store, prefix)).id for prefix in prefixes])
            query = Query(ids=ids, state=query.state, room=query.room, type=query.type)
        return await store.replay(query, time.time())


async def _resolve(store: Store, prefix: str) -> Record:
    """Return the one webhook whose id is `prefix` or begins with it; raises Failed if there is none, or several."""
    found = await store.find(Query(ids=(prefix,))) or await store.find(Query(prefix=prefix, limit=AMBIGUOUS))
    if not found:
        raise Failed(f"no webhook in {store.location} has an id that begins with {prefix!r}: see `events list`")
    if len(found) > 1:
        first, second, *_ = (printable(record.id) for record in found)
        raise Failed(f"several ids begin with {prefix!r}, {first} and {second} among them: name more of it")
    return found[0]


def _state(state: str | None) -> State | None:
    return None if state is None else State(state)


def _room(room: str | None) -> str | None:
    """Return the key of a room from its URL or its key; from its name, the end of its key."""
    if room is None:
        return None
    if "://" in room:
        return room_from_url(room).key
    host, slash, name = room.partition("/")
    if host and slash and "." in host:
        return f"{host.lower()}/{quote(name, safe='/%', errors='surrogateescape')}"
    return "/" + quote(room.strip("/"), safe="/%", errors="surrogateescape")


def _nothing_found(type: str | None) -> str:
    if type is None or type in WEBHOOK_TYPES:
        return "No such webhook is stored."
    return f"No such webhook is stored; Whereby sends no type {type!r}{did_you_mean(type, WEBHOOK_TYPES)}"


def _replayed(count: int) -> str:
    if not count:
        return "Nothing to replay: none of these webhooks is decided or held."
    return f"{count} to be replayed: at once if a trigger runs on this store, otherwise when one starts."


def _as_row(record: Record, *, short: bool) -> tuple[str, ...]:
    """Return a row of the list; a short one has only the start of the id, and no year."""
    received = local(record.received_at)
    return (
        received[len("2026-") : len("2026-01-01 00:00:00")] if short else received,
        record.id[:SHORT_ID] if short else record.id,
        record.type or "-",
        record.room or "-",
        record.state,
        record.reason,
    )


def _as_object(record: Record) -> dict[str, Any]:
    """Return the fields for a list: of what the sender wrote, only the id, the type and the room."""
    return {
        "id": record.id,
        "type": record.type,
        "room": record.room,
        "state": record.state,
        "reason": record.reason,
        "attempts": record.attempts,
        "deliveries": record.deliveries,
        "received_at": utc(record.received_at),
        "decided_at": None if record.decided_at is None else utc(record.decided_at),
        "due_at": None if record.due_at is None else utc(record.due_at),
    }


def _as_full_object(record: Record) -> dict[str, Any]:
    """Return all fields, including the errors of user code and the body."""
    return _as_object(record) | {
        "replica": record.owner,
        "errors": list(record.errors),
        "body": record.body.decode("utf-8", "replace"),
    }


def _as_lines(record: Record) -> list[str]:
    """Return all fields as lines for a person."""
    fields = [
        ("id", record.id),
        ("type", record.type or "-"),
        ("room", record.room or "-"),
        ("state", record.state),
        ("reason", record.reason or "-"),
        ("attempts", str(record.attempts)),
        ("deliveries", str(record.deliveries)),
        ("received", local(record.received_at)),
        ("decided", "-" if record.decided_at is None else local(record.decided_at)),
        *([("due", local(record.due_at))] if record.state is State.HELD and record.due_at is not None else []),
        ("replica", record.owner or "-"),
        *(("error", error) for error in record.errors),
    ]
    return [*(f"{name:<11} {value}" for name, value in fields), "", *_pretty(record.body).splitlines()]


def _pretty(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
