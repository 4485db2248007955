"""The table of a room's rules as a store in memory, without leases: thousands of series of meetings in seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.clock import JumpingClock
from whereby_trigger.store import Arrival, RoomClaim, RoomMove, RoomRequest, RoomState, SessionChange
from whereby_trigger.store.room_rules import (
    Change,
    OpenRoom,
    RoomEvent,
    Successor,
    change,
    moved,
    needs_changes,
    released,
    requested,
    session_changed,
)
from whereby_trigger.store.states import OVER, OWNED


@dataclass
class Kept:
    """Hold a room's entry as a store would."""

    key: str
    webhook: str | None
    entry: OpenRoom

    def __getattr__(self, name: str) -> object:
        return getattr(self.entry, name)


@dataclass
class RulesPlace:
    clock: JumpingClock = field(default_factory=lambda: JumpingClock(standing=True))
    rooms: list[Kept] = field(default_factory=list)
    changes: dict[str, SessionChange | None] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    joined: int = 0

    def replica(self) -> "RulesReplica":
        self.joined += 1
        return RulesReplica(self, f"replica {self.joined}")

    async def crash(self, store: "RulesReplica") -> None:
        self.dead.append(store.replica)

    async def outlast_the_dead(self, *alive: "RulesReplica") -> None:
        return

    def open_entry(self, key: str) -> Kept | None:
        return next((room for room in self.rooms if room.key == key and room.entry.state not in OVER), None)

    def known(self, key: str) -> list[SessionChange]:
        return [said for said in self.changes.values() if said is not None and said.key == key]

    def wait(self, opens: Successor) -> None:
        asked = opens.request
        entry = OpenRoom(len(self.rooms) + 1, RoomState.WAITING, None, None, asked.session_id, asked.asked_at, None)
        self.rooms.append(Kept(asked.key, asked.webhook, entry))

    def write(self, room: Kept, changed: Change) -> None:
        owner = changed.entry.owner if changed.entry.state in OWNED else None
        room.entry = changed.entry._replace(owner=owner)
        if changed.opens is not None:
            self.wait(changed.opens)


@dataclass
class RulesReplica:
    place: RulesPlace
    replica: str

    async def open(self, changed: Callable[[], None] | None = None) -> None:
        return

    async def close(self) -> None:
        return

    async def add(self, arrival: Arrival) -> None:
        if arrival.id in self.place.changes:
            return
        self.place.changes[arrival.id] = said = arrival.change
        room = None if said is None else self.place.open_entry(said.key)
        if said is not None and room is not None:
            self.place.write(room, session_changed(room.entry, said, self.place.known(said.key)))

    async def request(self, request: RoomRequest) -> RoomClaim:
        room = self.place.open_entry(request.key)
        entry = None if room is None else room.entry
        known = self.place.known(request.key) if needs_changes(entry, request) else []
        answer = requested(entry, request, known, self.place.clock.now())
        if room is not None and answer.change is not None:
            self.place.write(room, answer.change)
        elif answer.opens is not None:
            self.place.wait(answer.opens)
        return answer.claim

    async def take(self, slots: int) -> list[Kept]:
        taken = [room for room in self.place.rooms if room.entry.state is RoomState.WAITING][:slots]
        for room in taken:
            entry = room.entry._replace(owner=self.replica)
            self.place.write(room, change(entry, RoomEvent.TAKEN, ""))
        return taken

    async def stopping(self) -> list[Kept]:
        return [room for room in self.place.rooms if room.entry.owner == self.replica and room.entry.stop is not None]

    async def move(self, move: RoomMove) -> bool:
        room = self.place.rooms[move.id - 1]
        known = self.place.known(room.key)
        done = moved(room.entry, move.state, move.reason, known) if room.entry.owner == self.replica else None
        if done is not None:
            self.place.write(room, done)
        return done is not None

    async def take_over(self) -> int:
        left = [room for room in self.place.rooms if room.entry.owner in self.place.dead]
        for room in left:
            self.place.write(room, released(room.entry, "its replica died", None))
        return len(left)

    async def rooms(self) -> list[Kept]:
        return self.place.rooms[::-1]


@contextmanager
def rules_place(_: Path) -> Iterator[RulesPlace]:
    yield RulesPlace()
