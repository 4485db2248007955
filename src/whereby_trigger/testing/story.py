"""What happened in the rooms of a test, as the lines that are added to a failed assertion."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from whereby_trigger.errors import DecodeError
from whereby_trigger.store import Presence, Query, Record, Room, RoomQuery, RunQuery, RunRecord, Store
from whereby_trigger.webhook import RoomClientJoined, RoomClientLeft, decode, room_from_url


class Start(Protocol):
    """An assistant that starts, or would outside a test."""

    @property
    def room_url(self) -> str: ...

    @property
    def reason(self) -> str: ...


async def story_of(store: Store, began: float, now: float, starts: Sequence[Start], room: str | None = None) -> str:
    """Return what happened in a room, given as its name or URL, or in all rooms, with times in seconds since `began`.

    Raises ConfigError if a URL is not a Whereby room's.
    """
    room = room_from_url(room).key if room is not None and "://" in room else room
    webhooks: dict[str | None, list[Record]] = defaultdict(list)
    for record in reversed(await store.find(Query(room=room))):
        webhooks[record.room].append(record)
    entries: dict[str, list[Room]] = defaultdict(list)
    for entry in reversed(await store.find_rooms(RoomQuery(room=room))):
        entries[entry.key].append(entry)
    runs: dict[int, list[RunRecord]] = defaultdict(list)
    for run in reversed(await store.find_runs(RunQuery(room=room))):
        runs[run.entry].append(run)
    keys = [key for key in dict.fromkeys((*webhooks, *entries)) if key is not None]
    presences = await store.presences(frozenset(keys)) if keys else {}
    lines = [f"What happened, by the clock of the test, which shows {now - began:.2f} s:"]
    for key in keys:
        lines += ["", f"in {key}"]
        lines += [line for record in webhooks[key] for line in _webhook(record, began)]
        lines += [f"  now: {_who(presences[key])}"]
        lines += [f"  assistant: {start.reason or 'its predicate fired'}" for start in starts if _is_in(start, key)]
        lines += [line for entry in entries[key] for line in _entry(entry, runs[entry.id], began)]
    if webhooks[None]:
        lines += ["", "in no room", *(line for record in webhooks[None] for line in _webhook(record, began))]
    return "\n".join(lines if len(lines) > 1 else [*lines, "nothing was delivered"])


def _webhook(record: Record, began: float) -> Iterable[str]:
    again = f", delivered {record.deliveries} times" if record.deliveries > 1 else ""
    yield f"{record.received_at - began:9.2f}  {_called(record)}{again}"
    decided = "" if record.decided_at is None else f"{record.decided_at - began:9.2f}"
    yield f"{decided:>9}    {record.state}: {record.reason}" if record.reason else f"{decided:>9}    {record.state}"
    for error in record.errors:
        yield f"{'':>9}    {error}"


def _called(record: Record) -> str:
    try:
        webhook = decode(record.body)
    except DecodeError:
        return f"{record.type or 'a body that cannot be decoded'} {record.id[:12]}"
    said = ""
    if isinstance(webhook, RoomClientJoined | RoomClientLeft):
        present = webhook.data.present
        counts = "" if present is None else f": {_counted(*present)}"
        said = f" ({webhook.data.role_name}{counts})"
    return f"{record.type} {record.id[:12]}{said}"


def _entry(entry: Room, runs: Iterable[RunRecord], began: float) -> Iterable[str]:
    yield f"{entry.since - began:9.2f}  assistant {entry.state}{': ' * bool(entry.reason)}{entry.reason}"
    for run in runs:
        ended = "runs" if run.ended_at is None else f"{run.outcome} at {run.ended_at - began:.2f}, {run.reason}"
        yield f"{run.started_at - began:9.2f}    run {run.attempt}: {ended}"


def _is_in(start: Start, key: str) -> bool:
    return room_from_url(start.room_url).key == key


def _who(presence: Presence) -> str:
    if presence.humans is None or presence.bots is None:
        return "who is in the room is unknown"
    return _counted(presence.humans, presence.bots)


def _counted(humans: int, bots: int) -> str:
    return f"{humans} human{'' if humans == 1 else 's'}, {bots} bot{'' if bots == 1 else 's'}"
