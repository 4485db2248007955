"""Find, forget and shorten what is stored about a person or a room, page by page, on every store."""

import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from typing import Final

from msgspec import Struct, structs

from whereby_trigger.store.protocol import Store, Told, untold
from whereby_trigger.store.records import Query, Record, Rewrite, RoomQuery
from whereby_trigger.store.states import UNDECIDED
from whereby_trigger.text import storable_text
from whereby_trigger.webhook import REMOVED, DecodeError, decode, forgotten, is_about, room_path, texts_of, values_of

AT_ONCE: Final = 500
"""Webhooks read, and changed, at once: deliveries get their turn after each."""

PARTICIPANT: Final = "participantId"
EXTERNAL: Final = "externalId"


class Subject(Struct, frozen=True):
    """Say whom or what to look for: a person by participant ids, by an external id or by both, or a room.

    `room` is a room key, or a room name with its leading slash.
    """

    participants: frozenset[str] = frozenset()
    external_id: str | None = None
    room: str | None = None

    def concerns(self, body: bytes, room: str | None) -> bool:
        """Return True if a webhook, of the room with this key if it has one, is about the subject."""
        if self.room is not None:
            return _is_room(self.room, body, room)
        return self.names(body) or is_about(body, PARTICIPANT, *self.participants)

    def names(self, body: bytes) -> bool:
        """Return True if a webhook holds the external id."""
        return self.external_id is not None and is_about(body, EXTERNAL, self.external_id)


class Forgotten(Struct, frozen=True):
    """Count the webhooks that were changed or deleted, and name what was left.

    `undecided` are ids of webhooks that wait for their decision or lead to such, `rooms` the keys of rooms that have an
    assistant.
    """

    webhooks: int
    undecided: tuple[str, ...] = ()
    rooms: tuple[str, ...] = ()


async def identified(store: Store, subject: Subject, also: Iterable[bytes] = ()) -> Subject:
    """Return a person by an external id together with the participant ids that come with it.

    Whereby does not send the external id in each webhook of a person. Reads every body, and the bodies `also`.
    """
    if subject.external_id is None:
        return subject
    ids = set[str]()
    for body in also:
        if subject.concerns(body, None):
            ids |= participants_in(body)
    async for records in about(store, subject):
        for record in records:
            ids |= participants_in(record.body)
    return structs.replace(subject, participants=subject.participants | ids)


async def about(store: Store, subject: Subject) -> AsyncGenerator[list[Record], None]:
    """Yield the stored webhooks about a subject, oldest first, a page at a time; reads every body."""
    after = 0
    while page := await store.records_after(after, AT_ONCE):
        after = page[-1].seq
        yield [record for record in page if subject.concerns(record.body, record.room)]


async def forget(
    store: Store, subject: Subject, told: Told = untold, waiting: frozenset[str] = frozenset()
) -> Forgotten:
    """Remove a person from the stored webhooks, or a room with its webhooks, entries, runs and presence.

    Decided webhooks lose what may say something of a person, and the errors of user code; the runs of their rooms lose
    what the assistants raised or wrote. Their decisions stay. Webhooks without a decision are left, and so are those
    that lead from an external id to them: by them, and to the participants `waiting`. Of a room, all are deleted; one
    whose signature is still valid keeps its id, so that a copy of it is not decided again. `told` is called after each
    transaction with how many it changed. It may be interrupted anywhere, and called again.
    """
    if subject.room is None:
        return await _Forgetting(store, subject, told, waiting).run()
    total = 0
    async for records in about(store, subject):
        changed = await store.drop([record.seq for record in records], "", time.time()) if records else 0
        total += changed
        told(changed)
    await store.drop((), subject.room, time.time())
    entries = await store.find_rooms(RoomQuery(room=subject.room, open=True))
    return Forgotten(total, rooms=tuple(entry.key for entry in entries if entry.owner is not None))


class _Forgetting:
    """Forget a person in a store to which webhooks of the same person may come meanwhile.

    What only a participant id leads to goes first, and what leads there from an external id after it: after an
    interruption, nothing else would lead there.
    """

    def __init__(self, store: Store, subject: Subject, told: Told, waiting: frozenset[str]) -> None:
        self._store = store
        self._subject = subject
        self._told = told
        self._waiting_elsewhere = waiting
        self._waiting = set[str]()
        self._left: dict[str, None] = {}
        self._total = 0

    async def run(self) -> Forgotten:
        while True:
            self._waiting, self._left = set(self._waiting_elsewhere), {}
            settled = await self._last_settled()
            await self._forget_others(0)
            unknown = frozenset[str]() if self._subject.external_id is None else await self._forget_links(settled)
            if not unknown:
                return Forgotten(self._total, tuple(self._left))
            # The person has joined again since the participant ids were read.
            self._subject = structs.replace(self._subject, participants=self._subject.participants | unknown)

    async def _last_settled(self) -> int:
        """Return a number that is below those of all webhooks still to come."""
        return (await self._store.webhooks_after(0, frozenset())).cursor

    async def _forget_others(self, after: int) -> None:
        """Forget webhooks with higher numbers that do not hold the external id."""
        while page := await self._store.records_after(after, AT_ONCE):
            after = page[-1].seq
            of_person = [record for record in page if self._subject.concerns(record.body, record.room)]
            await self._rewrite([record for record in of_person if not self._subject.names(record.body)])

    async def _forget_links(self, settled: int) -> frozenset[str]:
        """Forget the webhooks that hold the external id, except those with participant ids that were not looked for.

        Return these ids. Others may have come after the number `settled`.
        """
        after, unknown = 0, frozenset[str]()
        while page := await self._store.records_after(after, AT_ONCE):
            after = page[-1].seq
            links = [record for record in page if self._subject.names(record.body)]
            if not links:
                continue
            # One that has come and is not decided yet keeps what leads to it.
            settled = await self._catch_up(settled)
            more = {record.id: participants_in(record.body) - self._subject.participants for record in links}
            unknown = unknown.union(*more.values())
            await self._rewrite([record for record in links if not more[record.id]])
        await self._catch_up(settled)
        return unknown

    async def _catch_up(self, settled: int) -> int:
        """Forget what has come meanwhile after the number `settled`; return the number to read on from next time.

        On PostgreSQL a lower number may be committed after a higher one, so what is new is read again for seconds.
        """
        after, settled = settled, await self._last_settled()
        await self._forget_others(after)
        return settled

    async def _rewrite(self, records: list[Record]) -> None:
        """Remove what says something of the person from webhooks, and note those that must be left."""
        rewrites = []
        for record in records:
            if record.state in UNDECIDED:
                self._leave(record)
            elif self._subject.names(record.body) and not self._waiting.isdisjoint(participants_in(record.body)):
                self._left[record.id] = None
            else:
                rewrites.append(Rewrite(record.seq, forgotten(record.body)))
        if not rewrites:
            return
        changed = await self._store.rewrite(rewrites, time.time(), silence=True)
        if changed < len(rewrites):
            # Somebody replayed them meanwhile, or they are pruned.
            for found in await self._store.find(Query(ids=tuple(record.id for record in records))):
                if found.state in UNDECIDED:
                    self._leave(found)
        self._total += changed
        self._told(changed)

    def _leave(self, record: Record) -> None:
        self._waiting |= participants_in(record.body)
        self._left[record.id] = None


async def remove_bodies(store: Store, before: float) -> int:
    """Remove what may say something of a person from decided webhooks received before a time; return from how many."""
    total, after = 0, (0.0, 0)
    while found := await store.old_bodies(before, after, AT_ONCE):
        rewrites = [Rewrite(old.seq, forgotten(old.body)) for old in found if old.body is not None]
        if rewrites:
            total += await store.rewrite(rewrites, time.time())
        after = found[-1].received_at, found[-1].seq
    return total


def participants_in(body: bytes) -> set[str]:
    """Return the participant ids in a body; none if it cannot be read."""
    with suppress(ValueError, RecursionError):
        return values_of(body, PARTICIPANT) - {"", REMOVED}
    return set()


def _is_room(wanted: str, body: bytes, room: str | None) -> bool:
    name = wanted[wanted.index("/") :]
    if room is not None:
        return room == wanted if wanted != name else room[room.index("/") :] == name
    # Webhooks of recordings and transcriptions name no subdomain.
    try:
        data = decode(body).data
    except DecodeError:
        return _names_room(wanted, body)
    named = data.get("roomName") if isinstance(data, Mapping) else data.room_name
    return isinstance(named, str) and bool(named) and room_path(named) == name


def _names_room(wanted: str, body: bytes) -> bool:
    """Return True if a body that is no webhook holds the name of a room, and no subdomain but the room's."""
    host, _, name = wanted.partition("/")
    hosts = {f"{text.lower()}.whereby.com" for text in texts_of(body, "subdomain")}
    if host and hosts and host not in hosts:
        return False
    return any(room_path(storable_text(text)) == f"/{name}" for text in texts_of(body, "roomName") if text)
