"""Sort what happened in a room into meetings: by session if it names one, by its time if it does not. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from math import inf
from typing import Final

from msgspec import Struct

from whereby_trigger.store import ActionRecord, Record, RefusalCount, ReplicaRecord, Room, RunRecord
from whereby_trigger.timeline.entries import (
    OPEN,
    ORDER,
    Entry,
    Seen,
    of_action,
    of_entry,
    of_refusals,
    of_replicas,
    of_run,
    of_webhook,
)

BEFORE: Final = 120.0
"""Seconds before its first webhook in which a meeting may have begun: its first deliveries may have been refused."""

AFTER: Final = 60.0
"""Seconds after its last webhook in which what happened still belongs to a meeting."""


class Found(Struct, frozen=True):
    """Hold what the store has of a room (webhooks, entries, runs, actions), and of its time (refusals, replicas)."""

    records: Sequence[Record] = ()
    rooms: Sequence[Room] = ()
    runs: Sequence[RunRecord] = ()
    refusals: Sequence[RefusalCount] = ()
    replicas: Sequence[ReplicaRecord] = ()
    actions: Sequence[ActionRecord] = ()


class Block:
    """Gather what happened in one meeting, or between two: then `session_id` is None."""

    def __init__(self, session_id: str | None) -> None:
        self.session_id = session_id
        self.webhooks: list[Seen] = []
        self.rooms: list[Room] = []
        self.runs: list[RunRecord] = []
        self.refusals: list[Entry] = []
        self.replicas: list[Entry] = []
        self.actions: list[Entry] = []

    @property
    def concerns_room(self) -> bool:
        """True if anything in it is of the room itself."""
        return bool(self.webhooks or self.rooms or self.runs)

    @property
    def began(self) -> float:
        return min(self._times)

    @property
    def ended(self) -> float:
        """When the last thing happened in it, as far as is known."""
        ends = [room.since for room in self.rooms] + [run.ended_at for run in self.runs if run.ended_at is not None]
        return max([*self._times, *ends])

    @property
    def over(self) -> bool:
        """True if the end of the session has come."""
        return any(seen.ends for seen in self.webhooks)

    @property
    def reach(self) -> float:
        """The time up to which what names no session belongs to it."""
        times = [seen.record.received_at for seen in self.webhooks]
        times += [inf if run.ended_at is None else run.ended_at for run in self.runs]
        times += [inf if room.state in OPEN else room.since for room in self.rooms]
        return max(times) + AFTER

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of it, oldest first."""
        entries = [
            *(entry for seen in self.webhooks for entry in of_webhook(seen)),
            *(entry for room in self.rooms for entry in of_entry(room, self.runs)),
            *(entry for run in self.runs for entry in of_run(run)),
            *self.refusals,
            *self.replicas,
            *self.actions,
        ]
        return tuple(sorted(entries, key=lambda entry: (entry.at, ORDER[entry.kind])))

    @property
    def _times(self) -> list[float]:
        # What was refused before a meeting's first webhook may be of another room.
        of_room = [
            *(seen.record.received_at for seen in self.webhooks),
            *(room.queued_at for room in self.rooms),
            *(run.started_at for run in self.runs),
        ]
        return of_room or [entry.at for entry in (*self.refusals, *self.replicas, *self.actions)]


class Blocks:
    """Sort what was found into blocks.

    What replicas did between meetings is left out, unless somebody asked for the time that begins `since`.
    """

    def __init__(self, key: str, found: Found, since: float | None, now: float) -> None:
        webhooks = [Seen(key, record) for record in sorted(found.records, key=lambda record: record.received_at)]
        sessions: dict[str, Block] = {}
        for seen in webhooks:
            if seen.session_id is not None:
                sessions.setdefault(seen.session_id, Block(seen.session_id)).webhooks.append(seen)
        self._meetings = sorted(sessions.values(), key=lambda block: block.began)
        self._starts = [block.began for block in self._meetings]
        self._between: dict[int, Block] = {}
        self._sort_own(webhooks, found)
        for refusal in of_refusals(found.refusals):
            self._around(refusal.at).refusals.append(refusal)
        for replica in of_replicas(found.replicas, found.runs, now):
            block = self._around(replica.at)
            asked_for = since is not None and replica.at >= since
            if asked_for or block.concerns_room:
                block.replicas.append(replica)

    @property
    def newest_first(self) -> list[Block]:
        blocks = [*self._meetings, *self._between.values()]
        there = [block for block in blocks if block.concerns_room or block.refusals or block.replicas or block.actions]
        return sorted(there, key=lambda block: block.began, reverse=True)

    def _sort_own(self, webhooks: Sequence[Seen], found: Found) -> None:
        of_webhook = {seen.record.id: block for block in self._meetings for seen in block.webhooks}
        for seen in webhooks:
            if seen.record.id not in of_webhook:
                of_webhook[seen.record.id] = self._around(seen.record.received_at)
                of_webhook[seen.record.id].webhooks.append(seen)
        for action in found.actions:
            (of_webhook.get(action.webhook or "") or self._around(action.at)).actions.append(of_action(action))
        of_entry: dict[int, Block] = {}
        for room in sorted(found.rooms, key=lambda room: room.id):
            block = of_webhook.get(room.webhook or "") or self._around(room.queued_at)
            of_entry[room.id] = block
            block.rooms.append(room)
        for run in sorted(found.runs, key=lambda run: run.id):
            (of_entry.get(run.entry) or self._around(run.started_at)).runs.append(run)

    def _around(self, at: float) -> Block:
        """Return the meeting to which a moment belongs, or the time between two meetings."""
        number = bisect_right(self._starts, at)
        if number and at <= self._meetings[number - 1].reach:
            return self._meetings[number - 1]
        if number < len(self._meetings) and at >= self._starts[number] - BEFORE:
            return self._meetings[number]
        return self._between.setdefault(number, Block(None))
