"""What was received and decided: listed, shown, replayed."""

import asyncio
import sys
import time
from urllib.parse import quote

import click

from whereby_trigger.cli.app import app_argument, app_option
from whereby_trigger.cli.output import Failed, note, show_lines, show_objects, show_table
from whereby_trigger.cli.records import HEADER, as_full_object, as_lines, as_object, as_row
from whereby_trigger.cli.stores import changed, looked_into, settings_with_store
from whereby_trigger.decide.predicates import did_you_mean
from whereby_trigger.store import Query, Record, State, Store
from whereby_trigger.text import printable
from whereby_trigger.webhook import WEBHOOK_TYPES, room_from_url

LIMIT = 50
AMBIGUOUS = 3

store_option = click.option("--store", metavar="URL", help="The store. [default: that of APP, or of the environment]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
state_option = click.option("--state", type=click.Choice([str(state) for state in State]), help="Only in this state.")
room_option = click.option("--room", help="Only of this room: its URL, its key or its name.")
type_option = click.option("--type", help="Only of this webhook type.")


@click.group()
def events() -> None:
    """Look at what was received and decided, or have it decided anew."""


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
        show_objects(map(as_object, records))
    elif records:
        show_table([as_row(record, short=sys.stdout.isatty()) for record in records], HEADER)
    if not records:
        note(_nothing_found(type))


@events.command()
@click.argument("id")
@app_option
@store_option
@json_option
def show(id: str, app: str | None, store: str | None, as_json: bool) -> None:
    """Show everything about one webhook, its body included; the beginning of its ID will do."""
    record = asyncio.run(_find_one(settings_with_store(app, store).store, id))
    if as_json:
        show_objects([as_full_object(record)])
    else:
        show_lines(*as_lines(record))


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
    """Have decided webhooks decided anew, whatever their age: those named, or those selected by options."""
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
    async with looked_into(url) as store:
        return await store.find(query)


async def _find_one(url: str, prefix: str) -> Record:
    async with looked_into(url) as store:
        return await _resolve(store, prefix)


async def _replay(url: str, prefixes: tuple[str, ...], query: Query) -> list[str]:
    async with changed(url) as store:
        if prefixes:
            ids = tuple([(await _resolve(store, prefix)).id for prefix in prefixes])
            query = Query(ids=ids, state=query.state, room=query.room, type=query.type)
        return await store.replay(query, time.time())


async def _resolve(store: Store, prefix: str) -> Record:
    """Find the one webhook whose id is, or begins with, what was given."""
    found = await store.find(Query(ids=(prefix,))) or await store.find(Query(prefix=prefix, limit=AMBIGUOUS))
    if not found:
        raise Failed(f"no webhook in {store.location} has an id that begins with {prefix!r}: see `events list`")
    if len(found) > 1:
        first, second, *_ = (printable(record.id) for record in found)
        raise Failed(f"several ids begin with {prefix!r}, {first} and {second} among them: give more of it")
    return found[0]


def _state(state: str | None) -> State | None:
    return None if state is None else State(state)


def _room(room: str | None) -> str | None:
    """Give a room's key from its URL or its key, or its name as a key has it."""
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
        return "Nothing to replay: no decided webhook is among them."
    return f"{count} to be decided anew: at once by a trigger that runs on this store, else when one starts."
