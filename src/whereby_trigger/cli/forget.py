"""`whereby-trigger forget`: remove what is stored about a person or a room."""

import asyncio
from collections.abc import Set

import click
from msgspec import Struct

from whereby_trigger.cli.app import app_argument
from whereby_trigger.cli.bulk import dry_run_option, is_agreed, progress, rewrite_option, webhooks_counted, yes_option
from whereby_trigger.cli.export import spilled_about, subject_of, subject_options
from whereby_trigger.cli.options import store_option
from whereby_trigger.cli.output import Failed, note, show_lines
from whereby_trigger.cli.stores import settings_with_store, store_to_change, store_to_read
from whereby_trigger.config import Settings
from whereby_trigger.errors import SpillInUse
from whereby_trigger.store import (
    UNDECIDED,
    Forgotten,
    Query,
    Store,
    Subject,
    about,
    identified,
    participants_in,
    privacy,
)
from whereby_trigger.store.factory import spill_file_for
from whereby_trigger.text import printable

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
    settings = settings_with_store(app, store)
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
        in_spill = await _forget_in_spill(settings, found.subject)
        moved = await _moved(store, found.subject, {arrival.id for arrival in spilled} - set(forgotten.undecided))
    done = "deleted" if found.subject.room else "redacted"
    show_lines(f"{webhooks_counted(forgotten.webhooks)} {done}")
    return [each for each in (*_left(forgotten), left, in_spill, moved) if each]


async def _moved(store: Store, subject: Subject, ids: Set[str]) -> str:
    """Return in words which deliveries have left the spill for the store after that was searched."""
    stored = await store.find(Query(ids=tuple(ids))) if ids else []
    came = tuple(record.id for record in stored if subject.concerns(record.body, record.room))
    return f"deliveries came from the spill meanwhile: run this again ({_named(came)})" if came else ""


async def _forget_in_spill(settings: Settings, subject: Subject) -> str:
    file = spill_file_for(settings.spill, settings.store)
    spilled = await spilled_about(settings, subject)
    if file is None or not spilled:
        return ""
    why = "are still to be decided"
    if subject.room is not None:
        try:
            await file.open()
        except SpillInUse:
            why = "are about to be stored by the trigger that has the spill open"
        else:
            try:
                await file.remove([seq for seq, one in await file.numbered() if subject.concerns(one.body, one.room)])
                return await file.wipe()
            finally:
                await file.close()
    ids = tuple(arrival.id for arrival in spilled)
    return f"deliveries in the spill {file.path} {why}: run this again later ({_named(ids)})"


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
