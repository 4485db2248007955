"""`whereby-trigger db`, `forget` and `events export`: migrate, prune, remove and write what is stored."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TextIO

import click
from msgspec import Struct

from whereby_trigger.cli.arguments import (
    app_argument,
    settings_with_store,
    store_option,
    store_to_change,
    store_to_read,
)
from whereby_trigger.cli.output import (
    Failed,
    dry_run_option,
    is_agreed,
    local,
    note,
    progress,
    rewrite_option,
    show_lines,
    webhooks_counted,
    yes_option,
)
from whereby_trigger.cli.rooms import entry_as_object, run_as_object
from whereby_trigger.config import Settings
from whereby_trigger.errors import SpillInUse
from whereby_trigger.store import (
    UNDECIDED,
    Arrival,
    Forgotten,
    Query,
    Record,
    Room,
    RoomQuery,
    RunQuery,
    Store,
    Subject,
    about,
    identified,
    participants_in,
    privacy,
    remove_bodies,
)
from whereby_trigger.store.factory import spill_file_for, store_for
from whereby_trigger.store.spill_file import SpillFile, read_content
from whereby_trigger.text import printable, utc
from whereby_trigger.threads import in_thread
from whereby_trigger.webhook import room_selected


@click.group()
def db() -> None:
    """Maintain the store by hand; a running trigger does it anyway."""


@db.command("migrate")
@app_argument
@store_option
def migrate(app: str | None, store: str | None) -> None:
    """Create the store, or bring it to this program's schema."""
    opened = store_for(settings_with_store(app, store).store)
    applied = asyncio.run(opened.migrate())
    numbers = ", ".join(map(str, applied))
    result = f"applied migrations {numbers}" if applied else "nothing to do, the schema is up to date"
    show_lines(f"{opened.location}: {result}")


@db.command("prune")
@app_argument
@store_option
@click.option(
    "--older-than",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Delete webhooks received longer ago than this whose signature has expired. [default: retention]",
)
@rewrite_option
@dry_run_option
@yes_option
def prune(
    app: str | None, store: str | None, older_than: float | None, rewrite: bool, dry_run: bool, yes: bool
) -> None:
    """Delete old decided webhooks.

    It says how many, and asks. Pending webhooks are kept at any age.
    """
    settings = settings_with_store(app, store, *(("retention", "body_retention") if older_than is None else ()))
    # Nothing was received before 1970, and a very large age lies before the first date that Python can show.
    before = max(0.0, time.time() - (settings.retention if older_than is None else older_than))
    location = store_for(settings.store).location
    found = asyncio.run(_prunable(settings.store, before))
    if not is_agreed(f"delete {_received(found, before)} from {location}", yes=yes, dry_run=dry_run):
        return
    bodies = None if older_than is not None else settings.body_retention
    deleted, left = asyncio.run(_prune(settings.store, before, bodies, found, rewrite or None))
    show_lines(f"{location}: deleted {_received(deleted, before)}")
    if left:
        note(f"Warning: {left}")


def _received(count: int, before: float) -> str:
    return f"{count:,} {'webhook' if count == 1 else 'webhooks'} received before {local(before)}"


async def _prunable(url: str, before: float) -> int:
    async with store_to_read(url) as store:
        return await store.prunable(before)


async def _prune(url: str, before: float, bodies: float | None, found: int, rewrite: bool | None) -> tuple[int, str]:
    async with store_to_change(url) as store:
        with progress(found, "The same command deletes the others.") as advance:
            deleted = await store.prune(before, advance)
        if bodies is not None:
            await remove_bodies(store, time.time() - bodies)
        return deleted, await store.wipe(rewrite=rewrite)


Write = Callable[[str, dict[str, Any]], None]


def subject_options(command: Any) -> Any:
    """Add the options of which one names a person or a room."""
    options = (
        click.option("--participant", metavar="ID", help="A person in one meeting, by participantId."),
        click.option("--external-id", metavar="ID", help="A person, by your own externalId."),
        click.option("--room", metavar="ROOM", help="A room: a URL, a key or a name."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def subject_of(participant: str | None, external_id: str | None, room: str | None) -> Subject:
    """Return the subject that a call names; raises UsageError unless it names one."""
    if sum(bool(value) for value in (participant, external_id, room)) != 1:
        raise click.UsageError("name one of --participant, --external-id and --room")
    participants = frozenset({participant} if participant else ())
    return Subject(participants, external_id or None, room_selected(room) if room else None)


@click.command(short_help="Write all that is stored about a person or a room.")
@app_argument
@subject_options
@store_option
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write to this file, for its owner only.")
def export(
    app: str | None,
    participant: str | None,
    external_id: str | None,
    room: str | None,
    store: str | None,
    out: str | None,
) -> None:
    """Write all that is stored about a person or a room, as one JSON object a line.

    Its "kind" is webhook, with the body; assistant, with its runs and what they wrote; presence; or spilled, a delivery
    that waits for the database.
    """
    subject = subject_of(participant, external_id, room)
    settings = _settings_with_spill(app, store)
    if out is None:
        count = asyncio.run(_export(settings, subject, lambda: nullcontext(sys.stdout)))
    else:
        count = asyncio.run(_export(settings, subject, partial(_written, out)))
    note(f"{count} objects written" if count else "Nothing is stored about it.")


def _settings_with_spill(app: str | None, store: str | None) -> Settings:
    # A file has no spill: beside one, that of the default program is another store's.
    is_file = store is not None and store.startswith("sqlite:")
    return settings_with_store(app, store, *(() if is_file else ("spill",)))


async def spilled(settings: Settings) -> list[Arrival]:
    """Return the deliveries that wait in the spill, also while a trigger has it open."""
    file = spill_file_for(settings.spill, settings.store)
    return [] if file is None or not file.path.exists() else await file.arrivals()


async def spilled_about(settings: Settings, subject: Subject) -> list[Arrival]:
    """Return those of them that are about a subject."""
    return [arrival for arrival in await spilled(settings) if subject.concerns(arrival.body, arrival.room)]


@contextmanager
def _written(path: str) -> Iterator[TextIO]:
    """Open a file to write it, for its owner only; it gets its name once it is whole. Raises OSError that names it."""
    path = os.path.realpath(path)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            # A device or a pipe is not ours alone, and keeps its name and its mode.
            with open(path, "w", encoding="utf-8") as file:
                yield file
            return
        with _new_file(f"{path}.part") as file:
            yield file
        os.replace(f"{path}.part", path)
    except OSError as error:
        error.filename = error.filename or path
        raise


@contextmanager
def _new_file(path: str) -> Iterator[TextIO]:
    """Write a file, and remove it if it does not become whole; one that a killed export left goes first."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(path)
            raise


async def _export(settings: Settings, subject: Subject, out: Callable[[], AbstractContextManager[TextIO]]) -> int:
    # Before the store: what a trigger moves from the one to the other meanwhile is then found twice, and not missed.
    waiting = await spilled(settings)
    async with store_to_read(settings.store) as store:
        # Only now: if there is no store, a file that is there keeps what it holds.
        with out() as file:
            return await _write_all(store, subject, waiting, file)


async def _write_all(store: Store, subject: Subject, waiting: Sequence[Arrival], file: TextIO) -> int:
    count = 0

    def write(kind: str, fields: dict[str, Any]) -> None:
        nonlocal count
        count += 1
        file.write(json.dumps({"kind": kind} | fields) + "\n")

    subject = await identified(store, subject, (arrival.body for arrival in waiting))
    rooms = set[str]()
    async for records in about(store, subject):
        rooms |= {record.room for record in records if record.room is not None}
        for record in records:
            write("webhook", _webhook(record))
    if subject.room is not None:
        rooms |= {entry.key for entry in await store.find_rooms(RoomQuery(room=subject.room))}
        if subject.room.startswith("/"):
            rooms |= set(await store.room_keys(subject.room))
        else:
            rooms.add(subject.room)
    for key in sorted(rooms):
        await _write_room(store, key, write, with_presence=subject.room is not None)
    for arrival in waiting:
        if subject.concerns(arrival.body, arrival.room):
            write("spilled", _spilled(arrival))
    return count


async def _write_room(store: Store, key: str, write: Write, *, with_presence: bool) -> None:
    for entry in reversed(await store.find_rooms(RoomQuery(room=key))):
        write("assistant", await _assistant(store, entry))
    presence = (await store.presences(frozenset({key})))[key] if with_presence else None
    if presence is not None and presence.changed_at is not None:
        counted = {"humans": presence.humans, "bots": presence.bots, "session_id": presence.session_id}
        write("presence", {"room": key, "changed_at": utc(presence.changed_at.timestamp())} | counted)


async def _assistant(store: Store, entry: Room) -> dict[str, Any]:
    runs = await store.find_runs(RunQuery(entry=entry.id))
    return entry_as_object(entry) | {"runs": [run_as_object(run) for run in runs]}


def _webhook(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "type": record.type,
        "room": record.room,
        "state": record.state,
        "reason": record.reason,
        "deliveries": record.deliveries,
        "received_at": utc(record.received_at),
        "decided_at": None if record.decided_at is None else utc(record.decided_at),
        "body_removed_at": None if record.body_removed_at is None else utc(record.body_removed_at),
        "errors": list(record.errors),
        "body": record.body.decode("utf-8", "replace"),
    }


def _spilled(arrival: Arrival) -> dict[str, Any]:
    return {
        "id": arrival.id,
        "type": arrival.type,
        "room": arrival.room,
        "received_at": utc(arrival.received_at),
        "body": arrival.body.decode("utf-8", "replace"),
    }


SHOWN = 5
"""Ids that are named; more are counted."""


class FoundAbout(Struct, frozen=True):
    """Count what a subject, with all its participant ids, has in the store and in the spill."""

    subject: Subject
    webhooks: int
    undecided: tuple[str, ...]
    spilled: tuple[str, ...]


@click.command(short_help="Remove what is stored about a person or a room.")
@app_argument
@subject_options
@store_option
@dry_run_option
@yes_option
@rewrite_option
def forget(
    app: str | None,
    participant: str | None,
    external_id: str | None,
    room: str | None,
    store: str | None,
    dry_run: bool,
    yes: bool,
    rewrite: bool,
) -> None:
    """Remove what is stored about a person or a room.

    Of a person, decided webhooks lose all names, ids and metadata; their decisions stay. Of a room, everything is
    deleted. It works beside a running trigger. It exits with 1 if something had to be left, and says what.
    """
    subject = subject_of(participant, external_id, room)
    settings = _settings_with_spill(app, store)
    found = asyncio.run(_find(settings, subject))
    for line in _remarks(found):
        note(line)
    if not is_agreed(_action(found), yes=yes, dry_run=dry_run):
        return
    left = asyncio.run(_forget(settings, found, rewrite or None))
    if left:
        raise Failed("; ".join(left))
    note("Done: the store's files hold nothing of it any more. Backups, and what your own program stored, are yours.")


async def _find(settings: Settings, subject: Subject) -> FoundAbout:
    spilled = await spilled_about(settings, subject)
    count, undecided = 0, list[str]()
    async with store_to_read(settings.store) as store:
        subject = await identified(store, subject, (arrival.body for arrival in spilled))
        async for records in about(store, subject):
            count += len(records)
            undecided += [record.id for record in records if record.state in UNDECIDED]
    return FoundAbout(subject, count, tuple(undecided), tuple(arrival.id for arrival in spilled))


async def _forget(settings: Settings, found: FoundAbout, rewrite: bool | None) -> list[str]:
    """Forget a subject; return what had to be left, in words."""
    spilled = await spilled_about(settings, found.subject)
    waiting = frozenset(id for arrival in spilled for id in participants_in(arrival.body))
    async with store_to_change(settings.store) as store:
        with progress(found.webhooks, "The same command removes the others.") as advance:
            forgotten = await privacy.forget(store, found.subject, advance, waiting)
        left = await store.wipe(rewrite=rewrite)
        in_spill = await _forget_in_spill(settings, found.subject, bool(rewrite))
        moved = await _moved(store, found.subject, {arrival.id for arrival in spilled} - set(forgotten.undecided))
    done = "deleted" if found.subject.room else "redacted"
    show_lines(f"{webhooks_counted(forgotten.webhooks)} {done}")
    return [each for each in (*_left(forgotten), left, in_spill, moved) if each]


async def _moved(store: Store, subject: Subject, ids: Set[str]) -> str:
    """Return in words which deliveries have left the spill for the store after that was searched."""
    stored = await store.find(Query(ids=tuple(ids))) if ids else []
    came = tuple(record.id for record in stored if subject.concerns(record.body, record.room))
    return f"deliveries came from the spill meanwhile: run this again ({_named(came)})" if came else ""


async def _forget_in_spill(settings: Settings, subject: Subject, rewrite: bool) -> str:
    """Delete a room's deliveries from the spill, and remove from its file what has left it; return what is left."""
    file = spill_file_for(settings.spill, settings.store)
    if file is None or not file.path.exists():
        return ""
    try:
        await file.open()
    except SpillInUse:
        return await _left_in_use(settings, file, subject)
    try:
        if subject.room is not None:
            await file.remove([seq for seq, one in await file.numbered() if subject.concerns(one.body, one.room)])
        left = await file.wipe(rewrite=rewrite)
    finally:
        await file.close()
    return left or _left_in_spill(file, await spilled_about(settings, subject), "are still to be decided")


async def _left_in_use(settings: Settings, file: SpillFile, subject: Subject) -> str:
    if spilled := await spilled_about(settings, subject):
        why = "are still to be decided" if subject.room is None else "are about to be stored by the trigger that has it"
        return _left_in_spill(file, spilled, why)
    if not await in_thread(lambda: read_content(file.path).waiting):
        return ""
    return (
        f"the spill {file.path} is in use, and its file may hold pieces of what has left it until the others have left "
        "it, too: run this again once it is empty"
    )


def _left_in_spill(file: SpillFile, spilled: list[Arrival], why: str) -> str:
    ids = tuple(arrival.id for arrival in spilled)
    return f"deliveries in the spill {file.path} {why}: run this again later ({_named(ids)})" if ids else ""


def _left(forgotten: Forgotten) -> list[str]:
    left = []
    if forgotten.undecided:
        named = _named(forgotten.undecided)
        left.append(f"webhooks that are not decided yet, or lead to such, were left: run this again later ({named})")
    if forgotten.rooms:
        named = _named(forgotten.rooms)
        left.append(f"an assistant is in the room: stop it with `assistants stop`, and run this again ({named})")
    return left


def _named(ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"{', '.join(map(printable, ids[:SHOWN]))}{more}"


def _action(found: FoundAbout) -> str:
    if found.subject.room is not None:
        return f"delete {webhooks_counted(found.webhooks)} of this room, its assistants' runs and its presence"
    count = webhooks_counted(found.webhooks - len(found.undecided))
    return f"remove names, ids and metadata from {count}, and what assistants wrote in their rooms"


def _remarks(found: FoundAbout) -> list[str]:
    said = []
    if found.undecided and found.subject.room is None:
        said.append(f"Not decided yet, and left for now: {_named(found.undecided)}.")
    if found.spilled:
        said.append(f"Waiting in the spill: {_named(found.spilled)}.")
    return said
