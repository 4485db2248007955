"""A store in a page of plain Python, without disk, threads or other processes: every store must behave like it.

It asks the table of rules what requests, session changes and moves do to a room; tests/store/test_meetings.py checks
the table's results.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from msgspec import structs

from whereby_trigger.store import RoomClaim, RoomRequest, RoomState, SessionChange
from whereby_trigger.store.room_rules import (
    Change,
    OpenRoom,
    is_unnamed,
    moved,
    needs_changes,
    requested,
    session_changed,
)
from whereby_trigger.store.states import OVER, OWNED

WAITING, STARTING, ENDING, ENDED = RoomState.WAITING, RoomState.STARTING, RoomState.ENDING, RoomState.ENDED


@dataclass
class Webhook:
    owner: str | None
    received_at: float
    change: SessionChange | None
    pending: bool = True
    deliveries: int = 1
    takeovers: int = 0
    crashes: int = 0


@dataclass
class Entry:
    request: RoomRequest
    since: float
    state: RoomState = WAITING
    owner: str | None = None
    stop: str | None = None
    attempt: int = 0
    successor: str | None = None
    id: float = inf
    """The store's number, which decides the order; the test fills it in."""

    @property
    def open(self) -> OpenRoom:
        asked = self.request.session_id, self.request.asked_at
        return OpenRoom(0, self.state, self.owner, self.stop, *asked, self.successor)


@dataclass
class Model:
    """Do what a store does, by its clock; if it `sees_death`, a replica that lost its lease lives until it dies."""

    ttl: float
    clock: Callable[[], float]
    sees_death: bool
    leases: dict[str, float] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    outlived: dict[str, float] = field(default_factory=dict)
    rejoined: dict[str, float] = field(default_factory=dict)
    webhooks: dict[str, Webhook] = field(default_factory=dict)
    rooms: list[Entry] = field(default_factory=list)

    def holds(self, replica: str) -> bool:
        return self.leases.get(replica, 0.0) > self.clock()

    def open_entry(self, key: str) -> Entry | None:
        return next((room for room in self.rooms if room.request.key == key and room.state not in OVER), None)

    def join(self, replica: str) -> None:
        self.leases[replica] = self.clock() + self.ttl

    def renew(self, replica: str) -> bool:
        held = self.holds(replica)
        if held:
            self.join(replica)
        return held

    def add(self, id: str, owner: str, change: SessionChange | None) -> bool:
        if id in self.webhooks:
            self.webhooks[id].deliveries += 1
            return False
        self.webhooks[id] = Webhook(owner, self.clock(), change)
        room = self.open_entry(change.key) if change else None
        if room is not None and change is not None:
            self._write(room, session_changed(room.open, change, self._changes(room)))
        return True

    def decide(self, id: str, owner: str) -> bool:
        webhook = self.webhooks[id]
        decided = webhook.pending and webhook.owner == owner
        webhook.pending = webhook.pending and not decided
        return decided

    def replay(self) -> None:
        for webhook in self.webhooks.values():
            if not webhook.pending:
                webhook.pending, webhook.owner, webhook.takeovers, webhook.crashes = True, None, 0, 0

    def request(self, request: RoomRequest) -> RoomClaim:
        room = self.open_entry(request.key)
        entry = None if room is None else room.open
        changes = self._said_of(request.key) if needs_changes(entry, request) else []
        answer = requested(entry, request, changes, self.clock())
        if room is not None and answer.change is not None:
            self._write(room, answer.change)
        elif answer.opens is not None:
            self.rooms.append(Entry(answer.opens.request, self.clock()))
        return answer.claim

    def _said_of(self, key: str) -> list[SessionChange]:
        said = [webhook.change for webhook in self.webhooks.values()]
        return [change for change in said if change is not None and change.key == key]

    def _changes(self, room: Entry) -> list[SessionChange]:
        return self._said_of(room.request.key) if is_unnamed(room.open) else []

    def _write(self, room: Entry, change: Change) -> None:
        state, entry = room.state, change.entry
        room.state, room.stop, room.successor = entry.state, entry.stop, entry.successor
        room.request = structs.replace(room.request, session_id=entry.session_id, asked_at=entry.asked_at)
        room.since = room.since if room.state is state else self.clock()
        if change.opens is not None:
            self.rooms.append(Entry(change.opens.request, self.clock()))

    def take(self, owner: str, slots: int, max_age: float) -> list[Entry]:
        since = self.clock() - max_age
        young = [room for room in self.rooms if room.state is WAITING and room.since >= since]
        waiting = sorted(young, key=lambda room: room.id)
        taken = waiting[:slots] if self.holds(owner) else []
        for room in taken:
            room.state, room.owner, room.attempt, room.since = STARTING, owner, room.attempt + 1, self.clock()
        return taken

    def move(self, room: Entry, state: RoomState, owner: str) -> bool:
        change = moved(room.open, state, "moved", self._changes(room))
        if room.owner != owner or change is None:
            return False
        self._write(room, change)
        room.owner, room.since = owner if room.state in OWNED else None, self.clock()
        return True

    def stop(self, key: str) -> None:
        room = self.open_entry(key)
        if room is not None:
            self._ask_to_stop(room, "hand")
            room.successor = None

    def _ask_to_stop(self, room: Entry, reason: str) -> None:
        if room.state is WAITING:
            room.state, room.since = ENDED, self.clock()
        else:
            room.stop = room.stop or reason

    def gone(self) -> set[str]:
        """Return the replicas and owners that are dead or hold no lease, unless they live on without one."""
        owners = {webhook.owner for webhook in self.webhooks.values() if webhook.pending}
        owners |= {room.owner for room in self.rooms}
        known = {replica for replica in (*self.leases, *owners) if replica is not None}
        return {one for one in known if one in self.dead or not (self.holds(one) or self._lives_without_lease(one))}

    def _lives_without_lease(self, replica: str) -> bool:
        return self.sees_death and replica not in self.leases

    def die(self, replica: str) -> None:
        if self.sees_death:
            self.dead.add(replica)

    def rejoin(self, old: str, new: str) -> None:
        self.dead.add(old)
        # Where leases decide, one that was given up counts as long ended once that is forgotten.
        self.leases.pop(old, None)
        if not self.sees_death:
            self.leases[old] = 0.0
        self.outlived[old] = self.rejoined[new] = self.clock()
        self.join(new)

    def take_over(self, owner: str) -> int:
        if not self.holds(owner):
            return 0
        taken = self._pass_on(None, owner)
        for other in self.gone() - {owner}:
            taken += self._pass_on(other, owner) + self._release(other)
            self.leases.pop(other, None)
        return taken

    def leave(self, replica: str) -> None:
        self.outlived[replica] = self.clock()
        self._pass_on(replica, None)
        self._release(replica)
        self.leases.pop(replica, None)
        self.dead.add(replica)

    def _pass_on(self, owner: str | None, heir: str | None) -> int:
        passed = [webhook for webhook in self.webhooks.values() if webhook.pending and webhook.owner == owner]
        for webhook in passed:
            webhook.owner = heir
            webhook.takeovers += owner is not None
            # A replica that has left or has a new id did not end with them; nor one that may be about to have one, as
            # its heir has, since the store was out of reach for both.
            away = self.leases.get(owner or "", inf) <= self.rejoined.get(heir or "", -inf)
            webhook.crashes += owner is not None and owner not in self.outlived and not away
        return len(passed)

    def _release(self, owner: str) -> int:
        owned = [room for room in self.rooms if room.owner == owner]
        for room in owned:
            self.move(room, ENDED if room.state is ENDING else WAITING, owner)
        return len(owned)

    def prune(self, before: float) -> None:
        self.outlived = {replica: ended for replica, ended in self.outlived.items() if ended >= before}
        for id in [id for id, one in self.webhooks.items() if not one.pending and one.received_at < before]:
            del self.webhooks[id]
        self.rooms = [room for room in self.rooms if room.state not in OVER or room.since >= before]
