"""`whereby-trigger events`: list, show and replay the stored webhooks."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
from msgspec import structs

from whereby_trigger.cli.arguments import (
    LIMIT,
    app_argument,
    app_option,
    complete_id,
    complete_type,
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
from whereby_trigger.cli.db import export
from whereby_trigger.cli.output import (
    Failed,
    dry_run_option,
    is_agreed,
    local,
    note,
    progress,
    show_lines,
    show_objects,
    show_table,
    webhooks_counted,
    yes_option,
)
from whereby_trigger.cli.rooms import entry_as_lines, entry_as_object, in_words, run_as_object
from whereby_trigger.decide.predicates import did_you_mean
from whereby_trigger.store import UNDECIDED, Query, Record, Room, RoomQuery, RunQuery, RunRecord, State, Store
from whereby_trigger.text import printable, utc
from whereby_trigger.webhook import WEBHOOK_TYPES, room_selected

HEADER = ("received", "id", "type", "room", "state", "reason")
SHORT_ID = 12
AMBIGUOUS = 3
AT_ONCE = 500
"""Webhooks that are replayed in one transaction."""

POLL = 0.5
"""Seconds between two looks for what was decided, in --follow."""

Assistants = list[tuple[Room, list[RunRecord]]]
"""The entries that a webhook asked for, newest first, each with its runs."""

state_option = click.option(
    "--state", type=click.Choice([str(state) for state in State]), help="Only webhooks in this state."
)
type_option = click.option("--type", metavar="TYPE", help="Only webhooks of this type.", shell_complete=complete_type)


@click.group()
def events() -> None:
    """List, show or replay stored webhooks and their decisions."""


@events.command("list")
@app_argument
@store_option
@state_option
@room_option
@type_option
@since_option
@until_option
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="How many, newest first.")
@click.option("--follow", is_flag=True, help="Go on with each webhook as it is held or decided; Ctrl-C ends it.")
@json_option
def list_(
    app: str | None,
    store: str | None,
    state: str | None,
    room: str | None,
    type: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    follow: bool,
    as_json: bool,
) -> None:
    """List stored webhooks, newest first, without their bodies.

    The reason of one that asked for an assistant ends with what has become of it.
    """
    if follow and until is not None:
        raise click.UsageError("--follow goes on until you end it: leave out --until")
    start, end = time_range(since, until)
    query = Query(state=_state(state), room=_room(room), type=type, since=start, until=end, limit=limit)
    url = settings_with_store(app, store).store
    if follow:
        asyncio.run(_follow(url, query, as_json=as_json))
        return
    records, entries = asyncio.run(_find(url, query))
    _show_list(records, entries, HEADER, as_json=as_json)
    if not records:
        note(_nothing_found(type))


def _show_list(
    records: Sequence[Record], entries: Mapping[str, Room], header: Sequence[str] | None, *, as_json: bool
) -> None:
    if as_json:
        show_objects(_as_object(record, entries.get(record.id)) for record in records)
    elif records:
        short = sys.stdout.isatty()
        show_table([_as_row(record, entries.get(record.id), short=short) for record in records], header)


@events.command()
@click.argument("id", shell_complete=complete_id)
@app_option
@store_option
@json_option
def show(id: str, app: str | None, store: str | None, as_json: bool) -> None:
    """Show all about one webhook, including its body.

    It also names the assistant that the webhook asked for, and each of its runs. The first characters of the ID are
    enough.
    """
    record, assistants = asyncio.run(_find_one(settings_with_store(app, store).store, id))
    if as_json:
        show_objects([_as_full_object(record, assistants)])
    else:
        show_lines(*_as_lines(record, assistants))


@events.command()
@click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=complete_id)
@app_option
@store_option
@state_option
@room_option
@type_option
@since_option
@until_option
@dry_run_option
@yes_option
@json_option
def replay(
    ids: tuple[str, ...],
    app: str | None,
    store: str | None,
    state: str | None,
    room: str | None,
    type: str | None,
    since: str | None,
    until: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Replay decided or held webhooks: those named, or those selected.

    Each is decided again, at any age; a hold begins again. If you name no ID, it says how many are selected, and asks.
    """
    if not ids and not (state or room or type or since or until):
        raise click.UsageError("name the webhooks to replay by ID, or select them, e.g. --state failed")
    start, end = time_range(since, until)
    url = settings_with_store(app, store).store
    query = Query(state=_state(state), room=_room(room), type=type, since=start, until=end)
    found, without_body = asyncio.run(_replayable(url, ids, query))
    # Who names each webhook has said what is to be done.
    named = bool(ids) and not dry_run
    agreed = found and is_agreed(f"replay {webhooks_counted(len(found))}", yes=yes or named, dry_run=dry_run)
    if found and not agreed:
        return
    replayed = asyncio.run(_replay(url, found, query))
    if as_json:
        show_objects({"id": id} for id in replayed)
    else:
        show_lines(*replayed)
    note(_replayed(len(replayed), without_body))


events.add_command(export)


async def _find(url: str, query: Query) -> tuple[list[Record], dict[str, Room]]:
    """Return the webhooks that match, and by their ids the newest entries that they asked for."""
    async with store_to_read(url) as store:
        records = await store.find(query)
        return records, await _entries(store, records)


async def _entries(store: Store, records: Sequence[Record]) -> dict[str, Room]:
    fired = tuple(record.id for record in records if record.state is State.FIRED)
    rooms = await store.find_rooms(RoomQuery(webhooks=fired)) if fired else []
    return {room.webhook: room for room in reversed(rooms) if room.webhook is not None}


async def _follow(url: str, query: Query, *, as_json: bool) -> None:
    """Show the webhooks that match once they are decided, oldest first, until cancelled."""
    async with store_to_read(url) as store:
        decided = Decided(store, query)
        header: Sequence[str] | None = HEADER
        while True:
            if records := await decided.new():
                _show_list(records, await _entries(store, records), header, as_json=as_json)
                header = None
            if decided.may_have_missed:
                note("More came at once than one look reads: some may be missing here. See `events list`.")
            await asyncio.sleep(POLL)


async def _find_one(url: str, prefix: str) -> tuple[Record, Assistants]:
    """Return a webhook, and the entries that it asked for, each with its runs.

    If it fired and asked for none, the room had an assistant already: then that one is returned.
    """
    async with store_to_read(url) as store:
        record = await _resolve(store, prefix)
        rooms = await store.find_rooms(RoomQuery(webhooks=(record.id,)))
        if not rooms and record.state is State.FIRED and record.room is not None and record.decided_at is not None:
            rooms = await store.find_rooms(
                RoomQuery(room=record.room, since=record.decided_at, until=record.decided_at, limit=1)
            )
        return record, [(room, await store.find_runs(RunQuery(entry=room.id))) for room in rooms]


async def _replayable(url: str, prefixes: tuple[str, ...], query: Query) -> tuple[list[str], int]:
    """Return the ids of what can be replayed, and how many of those named have lost what their bodies said."""
    async with store_to_read(url) as store:
        named = [await _resolve(store, prefix) for prefix in prefixes]
        if named:
            query = structs.replace(query, ids=tuple(record.id for record in named))
        return await store.replayable(query), sum(record.body_removed_at is not None for record in named)


async def _replay(url: str, ids: list[str], query: Query) -> list[str]:
    """Replay webhooks in parts, each in one transaction, so that deliveries get their turn."""
    replayed: list[str] = []
    if not ids:
        return replayed
    async with store_to_change(url) as store:
        with progress(len(ids), "The others stay as they are.") as advance:
            for first in range(0, len(ids), AT_ONCE):
                part = structs.replace(query, ids=tuple(ids[first : first + AT_ONCE]))
                replayed += await store.replay(part, time.time())
                advance(len(part.ids or ()))
    return replayed


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
    return None if room is None else room_selected(room)


def _nothing_found(type: str | None) -> str:
    if type is None or type in WEBHOOK_TYPES:
        return "No such webhook is stored."
    return f"No such webhook is stored; Whereby sends no type {type!r}{did_you_mean(type, WEBHOOK_TYPES)}"


def _replayed(count: int, without_body: int) -> str:
    if without_body:
        left = f"{without_body} left out: what the bodies said was removed by body_retention or by `forget`."
        return f"{_replayed(count, 0)} {left}" if count else left
    if not count:
        return "Nothing to replay: none of these webhooks is decided or held."
    return f"{count} to be replayed: at once if a trigger runs on this store, otherwise when one starts."


def _reason(record: Record, room: Room | None) -> str:
    return record.reason if room is None else f"{record.reason}; it {in_words(room)}"


def _as_row(record: Record, room: Room | None, *, short: bool) -> tuple[str, ...]:
    """Return a row of the list; a short one has only the start of the id, and no year."""
    received = local(record.received_at)
    return (
        received[len("2026-") : len("2026-01-01 00:00:00")] if short else received,
        record.id[:SHORT_ID] if short else record.id,
        record.type or "-",
        record.room or "-",
        record.state,
        _reason(record, room),
    )


def _as_object(record: Record, room: Room | None) -> dict[str, Any]:
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
        "assistant": None if room is None else entry_as_object(room),
    }


def _as_full_object(record: Record, assistants: Assistants) -> dict[str, Any]:
    """Return all fields, including the errors of user code, the body, and what assistants raised or wrote."""
    return _as_object(record, assistants[0][0] if assistants else None) | {
        "assistants": [entry_as_object(room) | {"runs": list(map(run_as_object, runs))} for room, runs in assistants],
        "replica": record.owner,
        "body_removed_at": None if record.body_removed_at is None else utc(record.body_removed_at),
        "errors": list(record.errors),
        "body": record.body.decode("utf-8", "replace"),
    }


def _as_lines(record: Record, assistants: Assistants) -> list[str]:
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
        *([("people", f"removed {local(record.body_removed_at)}")] if record.body_removed_at is not None else []),
        *(("error", error) for error in record.errors),
    ]
    lines = [f"{name:<11} {value}" for name, value in fields]
    for room, runs in assistants:
        first, *rest = entry_as_lines(room, runs)
        if room.webhook != record.id:
            first += f"; asked for {f'by {room.webhook}' if room.webhook else 'by hand'}"
        lines += [f"{'assistant':<11} {first}", *(f"{'':<11} {line}" for line in rest)]
    return [*lines, "", *_pretty(record.body).splitlines()]


def _pretty(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


MOST_AT_ONCE = 500
"""The newest webhooks that are looked at: more than arrive between two looks. Of those that wait, so many at a time."""


class Decided:
    """Read the webhooks that match a query as they are decided or held, each once, and again after a replay."""

    def __init__(self, store: Store, query: Query) -> None:
        self._store = store
        self._query = query
        # In any state: a webhook that is not decided yet is remembered, and looked up until it is.
        self._newest = structs.replace(query, state=None, limit=max(MOST_AT_ONCE, query.limit or 0))
        self._known: set[str] | None = None
        self._last = 0
        self.may_have_missed = False
        """True if more may have come between the last two looks than one reads."""

        self._undecided: dict[str, State] = {}

    async def new(self) -> list[Record]:
        """Return those that were decided or held since the last call, oldest first; at first, the newest `limit`."""
        newest = await self._store.find(self._newest)
        seen = {record.id for record in newest}
        is_full = len(newest) == self._newest.limit and newest[-1].seq > self._last + 1
        self.may_have_missed = is_full and self._known is not None
        self._last = max([self._last, *(record.seq for record in newest)])
        late, left = await self._find_late([id for id in self._undecided if id not in seen])
        known, waited = self._known or set(), self._undecided
        looked_at = {record.id: record for record in (*newest, *late)}
        self._undecided = {id: waited[id] for id in left} | {
            # A hold that is asked about is pending for a moment, and then the same hold.
            id: State.HELD if waited.get(id) is State.HELD else record.state
            for id, record in reversed(looked_at.items())
            if record.state in UNDECIDED
        }
        found = [
            record
            for id, record in looked_at.items()
            if record.state is not State.PENDING
            and (id not in known or id in waited)
            and (record.state, waited.get(id)) != (State.HELD, State.HELD)
            and self._query.state in (None, record.state)
        ]
        first, self._known = self._known is None, seen
        return (found[: self._query.limit] if first else found)[::-1]

    async def _find_late(self, waiting: list[str]) -> tuple[list[Record], list[str]]:
        """Look up webhooks that wait, those first that were not looked at for longest; return the ids of the others.

        The oldest are mostly decided first. If few of them are, the others are left for the next time: tens of
        thousands may wait, and the database is busy then.
        """
        late: list[Record] = []
        while waiting:
            asked, waiting = waiting[:MOST_AT_ONCE], waiting[MOST_AT_ONCE:]
            found = await self._store.find(Query(ids=tuple(asked)))
            late += found
            if sum(record.state in UNDECIDED for record in found) > len(asked) // 2:
                break
        return sorted(late, key=lambda record: record.seq, reverse=True), waiting
