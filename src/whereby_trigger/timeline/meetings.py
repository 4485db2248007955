"""The meetings of a room: what happened is sorted into them, and each gets its answer in one sentence. Pure.

A webhook belongs to its session if it names one, and to its time if it does not. The answer says why no assistant
came, or what it did.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from msgspec import Struct

from whereby_trigger.store import (
    ActionRecord,
    Record,
    RefusalCount,
    ReplicaRecord,
    Room,
    RoomState,
    RunOutcome,
    RunRecord,
    State,
)
from whereby_trigger.timeline.entries import (
    OPEN,
    ORDER,
    PROMPT,
    SHORT,
    Entry,
    Seen,
    clock,
    lasted,
    listeners_in_words,
    of_action,
    of_entry,
    of_refusals,
    of_replicas,
    of_run,
    of_webhook,
    reason_of,
    shortened,
)

BEFORE: Final = 120.0
"""Seconds before its first webhook in which a meeting may have begun: its first deliveries may have been refused."""

AFTER: Final = 60.0
"""Seconds after its last webhook in which what happened still belongs to a meeting."""


class Found(Struct, frozen=True):
    """Hold what the store has of a room (webhooks, entries, runs, actions), and of its time (refusals, replicas).

    If the room has nothing in this time, `newest` is when its newest webhook of all came, or None.
    """

    records: Sequence[Record] = ()
    rooms: Sequence[Room] = ()
    runs: Sequence[RunRecord] = ()
    refusals: Sequence[RefusalCount] = ()
    replicas: Sequence[ReplicaRecord] = ()
    actions: Sequence[ActionRecord] = ()
    newest: float | None = None


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
        self.stayed: tuple[Room, Sequence[RunRecord]] | None = None
        """If it asked for no assistant, the entry of another block that was there meanwhile, with runs."""

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
        self._reaches: list[float] | None = None
        self._between: dict[int, Block] = {}
        self._sort_own(webhooks, found)
        # Once: of what happened to all rooms, there may be thousands.
        self._reaches = [block.reach for block in self._meetings]
        for refusal in of_refusals(found.refusals):
            self._around(refusal.at).refusals.append(refusal)
        for replica in of_replicas(found.replicas, found.runs, now):
            block = self._around(replica.at)
            asked_for = since is not None and replica.at >= since
            if asked_for or block.concerns_room:
                block.replicas.append(replica)
        self._find_who_stayed(now)

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

    def _find_who_stayed(self, now: float) -> None:
        """Find, for each block that asked for no assistant, an entry of another block that was there meanwhile.

        Whereby names no session while one person waits alone, so the assistant that this person got is often asked for
        before the meeting. And the end of a meeting may be lost.
        """
        blocks = [*self._meetings, *self._between.values()]
        asked = sorted(((room, block) for block in blocks for room in block.rooms), key=lambda pair: pair[0].queued_at)
        times = [room.queued_at for room, _ in asked]
        for block in blocks:
            if block.rooms or not block.webhooks:
                continue
            # A room has one open entry at a time: only the last one before each of the two can have been there.
            for moment in (block.ended, block.began):
                number = bisect_right(times, moment)
                if number and _stayed(*asked[number - 1], block, now):
                    room, other = asked[number - 1]
                    block.stayed = room, other.runs
                    break

    def _around(self, at: float) -> Block:
        """Return the meeting to which a moment belongs, or the time between two meetings."""
        number = bisect_right(self._starts, at)
        if number:
            before = self._meetings[number - 1]
            reach = before.reach if self._reaches is None else self._reaches[number - 1]
            if at <= reach:
                return before
        if number < len(self._meetings) and at >= self._starts[number] - BEFORE:
            return self._meetings[number]
        return self._between.setdefault(number, Block(None))


def _stayed(room: Room, other: Block, block: Block, now: float) -> bool:
    """Return True if an entry, which another block asked for, was there during a block."""
    goes = room.state is RoomState.ENDING or room.stop is not None
    over = room.since if room.state not in OPEN else now if goes else inf
    if other.session_id is None:
        return over > block.began + PROMPT
    # One that another meeting asked for, and that left as this one began, was not there for it.
    return room.queued_at <= block.began and over > block.began + AFTER


ALIVE: Final = 90.0
"""Seconds after which a replica that has not renewed its lease is taken to be gone."""

LATE: Final = 10.0
"""Seconds that a room may wait for its assistant before the answer says so."""

STAYED: Final = 60.0
"""Seconds after which a run that failed was in the room before that. A program that is refused is live for a moment."""

RESTARTS: Final = re.compile(r": restart \d+ of \d+$|, after \d+ restarts$")
"""What the reason of a run says beside how it ended."""

FAILURES: Final = frozenset({RunOutcome.FAILED, RunOutcome.REFUSED, RunOutcome.EXHAUSTED})


class Replicas:
    """Say which replicas ran at a time, as seen at `now`. Without any record, nothing is known."""

    def __init__(self, records: Sequence[ReplicaRecord], now: float) -> None:
        self._records = records
        self.now = now

    def none_ran(self, begin: float, end: float) -> bool:
        """Return True if it is known that no replica ran at any moment between two times."""
        ran = any(each.started_at <= end and self._gone_at(each) >= begin for each in self._records)
        return bool(self._records) and not ran

    @property
    def none_runs(self) -> bool:
        """True if it is known that no replica runs now."""
        return self.none_ran(self.now, self.now)

    def _gone_at(self, replica: ReplicaRecord) -> float:
        if replica.ended_at is not None:
            return replica.ended_at
        seen_at = replica.started_at if replica.seen_at is None else replica.seen_at
        return inf if self.now - seen_at <= ALIVE else seen_at


def answer_for(
    blocks: Sequence[Block], replicas: Replicas, begin: float, end: float, known: float | None, *, limited: bool
) -> str:
    """Return the answer for the newest meeting, and what was refused since; `blocks` has the newest first.

    If nothing came between two times, it says so; `limited` is True if somebody asked for these times, and `known` is
    when a webhook of the room came at another time, or None.
    """
    newest = next((block for block in blocks if block.concerns_room), None)
    if newest is None:
        return _nothing_came(blocks, replicas, begin, end, known, limited=limited)
    refused = [entry for block in blocks if block.began > newest.began for entry in block.refusals]
    answer = answer_of(newest, replicas)
    return f"Since its last meeting, {refusals_in_words(refused)}. {answer}" if refused else answer


def answer_of(block: Block, replicas: Replicas) -> str:
    """Return in a sentence what the assistant of a meeting did, or why there was none; "" if nothing is to be said."""
    refused = refusals_in_words(block.refusals) if block.refusals else ""
    if not block.concerns_room:
        return f"{refused[:1].upper()}{refused[1:]}." if refused else ""
    began = clock(block.began, replicas.now)
    meeting = f"the meeting of {began}" if block.webhooks else f"the room at {began}"
    if block.rooms:
        said = _of_entries(block, meeting, replicas)
    elif block.stayed is not None:
        said = _of_assistant(*block.stayed, block, meeting, replicas)
    else:
        said = _of_decisions(block, meeting, replicas)
    said = f"{said}; {refused}" if refused else said
    return said if said.endswith("?") else f"{said}."


def _nothing_came(
    blocks: Sequence[Block], replicas: Replicas, begin: float, end: float, known: float | None, *, limited: bool
) -> str:
    now = replicas.now
    came = f"came from {clock(begin, now)} to {clock(end, now)}" if limited else "is stored"
    nothing = f"No assistant: no webhook of this room {came}"
    refused = [entry for block in blocks for entry in block.refusals]
    if refused:
        return f"{nothing}, but {refusals_in_words(refused)}."
    if replicas.none_ran(begin, end):
        return f"{nothing}, and no trigger was running."
    if known is not None:
        return f"{nothing}, and none was refused; its newest one came at {clock(known, now)}."
    return (
        f"{nothing}, and none was refused. Does Whereby's dashboard (Configure, Webhooks) have the URL of this trigger?"
    )


def refusals_in_words(refused: Sequence[Entry]) -> str:
    """Return in words how many deliveries were refused, and for which reasons."""
    counts: Counter[tuple[str, int]] = Counter()
    for entry in refused:
        counts[entry.fields["reason"], entry.fields["status"]] += entry.fields["count"]
    reasons = ", ".join(f"{reason}{f' ({status})' if status else ''}" for (reason, status), _ in counts.most_common(3))
    total = counts.total()
    return f"{'1 delivery was' if total == 1 else f'{total:,} deliveries were'} refused: {reasons}"


# What became of the assistant


def _of_entries(block: Block, meeting: str, replicas: Replicas) -> str:
    """Return what became of the last entry of a meeting and, if that had no assistant, of the last one that had."""
    said = _of_assistant(block.rooms[-1], block.runs, block, meeting, replicas)
    none = f"No assistant in {meeting}"
    had_one = {run.entry for run in block.runs if _was_there(run)}
    before = next((room for room in reversed(block.rooms[:-1]) if room.id in had_one), None)
    if before is None or not said.startswith(none):
        return said
    return f"{_of_assistant(before, block.runs, block, meeting, replicas)}; then none{said.removeprefix(none)}"


def _of_assistant(room: Room, all_runs: Sequence[RunRecord], block: Block, meeting: str, replicas: Replicas) -> str:
    runs = [run for run in all_runs if run.entry == room.id]
    if not runs:
        crowded = any("no free slot" in seen.record.reason for seen in block.webhooks)
        return _without_run(room, meeting, replicas, crowded=crowded)
    failed, reason = _failures(runs), reason_of(room)
    after = f", after it {failed}" if failed else ""
    match room.state:
        case RoomState.LIVE:
            since = clock(room.since, replicas.now)
            return f"An assistant is in {meeting} since {since}{after}{_late(room, runs, replicas.now)}"
        case RoomState.STARTING | RoomState.ENDING:
            return f"An assistant is {room.state} in {meeting}{after}{f': {reason}' if reason else ''}"
        case RoomState.WAITING:
            return f"No assistant in {meeting} now: it {failed or reason}, and waits to start again"
        case RoomState.FAILED | RoomState.ENDED:
            return _ended(room, runs, meeting, replicas.now)


def _without_run(room: Room, meeting: str, replicas: Replicas, *, crowded: bool) -> str:
    if room.state is RoomState.WAITING:
        lack = "a trigger to run on this store" if replicas.none_runs else "a free slot"
        return f"No assistant in {meeting} yet: it waits for {lack} since {clock(room.queued_at, replicas.now)}"
    if room.state in OPEN:
        return f"An assistant is {room.state} in {meeting}"
    waited = room.since - room.queued_at
    told = f" for {lasted(waited)}" if waited > PROMPT else ""
    if replicas.none_ran(room.queued_at, room.since):
        return f"No assistant in {meeting}: no replica was running{told}, then {reason_of(room)}"
    if waited > PROMPT or crowded:
        return f"No assistant in {meeting}: no replica had a free slot{told}, then {reason_of(room)}"
    return f"No assistant in {meeting}: {reason_of(room)}"


def _ended(room: Room, runs: Sequence[RunRecord], meeting: str, now: float) -> str:
    failed, reason = _failures(runs), reason_of(room)
    good = [run for run in runs if _was_there(run)]
    died = [run for run in runs if run.outcome is RunOutcome.REPLICA_DIED]
    if not good and room.state is RoomState.FAILED:
        return f"No assistant in {meeting}: it {failed or reason}{', and then gave up' if len(runs) > 1 else ''}"
    if not good:
        lost = [f"its replica {_short(run)} died" for run in died]
        happened = ", ".join([*([f"it {failed}"] if failed else []), *lost])
        return f"No assistant in {meeting}: {f'{happened}, then ' if happened else ''}{reason}"
    begun, over = good[0].live_at or good[0].started_at, good[-1].ended_at or room.since
    said = f"An assistant was in {meeting} from {clock(begun, now)} to {clock(over, now)}: {_why_over(good[-1])}"
    before = _failures([run for run in runs if run.id < good[-1].id])
    after = _failures([run for run in runs if run.id > good[-1].id])
    said += f", after it {before}" if before else ""
    if after:
        said += f"; then it {after}{', and then gave up' if room.state is RoomState.FAILED else ''}"
    if died and good[-1] is not died[0]:
        said += f"; its replica {_short(died[0])} died at {clock(died[0].ended_at or over, now)}, and another went on"
    return said + _late(room, runs, now)


def _was_there(run: RunRecord) -> bool:
    """Return True if the assistant of a run was in the room, however it ended: one that fails as it joins was not."""
    if run.live_at is None:
        return False
    return run.outcome not in FAILURES or (run.ended_at or run.live_at) - run.live_at >= STAYED


def _why_over(run: RunRecord) -> str:
    if run.outcome in FAILURES:
        return f"it {_how(run)}"
    return shortened(run.reason, run.replica) or str(run.outcome or "its end was not recorded")


def _short(run: RunRecord) -> str:
    return (run.replica or "")[:SHORT]


def _late(room: Room, runs: Sequence[RunRecord], now: float) -> str:
    """Return that the room waited long for its first run, or nothing."""
    waited = min(run.started_at for run in runs) - room.queued_at
    return f"; it waited {lasted(waited)} for a free slot, since {clock(room.queued_at, now)}" if waited > LATE else ""


def _failures(runs: Sequence[RunRecord]) -> str:
    """Return in words how runs failed: `exited with 75 four times`; "" if none did."""
    how = Counter(_how(run) for run in runs if run.outcome in FAILURES)
    return ", ".join(f"{what}{_times(count)}" for what, count in how.items())


def _how(run: RunRecord) -> str:
    if run.exit_code:
        return f"exited with {run.exit_code}"
    if run.signal is not None:
        return f"was ended by signal {run.signal}"
    if run.exception is not None:
        return f"raised {run.exception}"
    return RESTARTS.sub("", run.reason)


def _times(count: int) -> str:
    """Return how often something happened, as the end of a sentence; once is not worth a word."""
    words = ("", "", " twice", " three times", " four times", " five times", " six times")
    return words[count] if count < len(words) else f" {count:,} times"


# What was decided


def _of_decisions(block: Block, meeting: str, replicas: Replicas) -> str:
    """Return why no webhook of a meeting led to an assistant: what the most telling of its decisions says."""
    for state, say in SAID.items():
        records = [seen.record for seen in block.webhooks if seen.record.state is state]
        if records:
            return f"No assistant in {meeting}: {say(records, replicas)}"
    return f"No assistant in {meeting}: nothing asked for one"


def _fired(records: Sequence[Record], replicas: Replicas) -> str:
    record = records[-1]
    raised = listeners_in_words(record)
    if ";" in record.reason:
        return f"{record.reason}{raised}"
    return f"{record.reason}, but the program has no @trigger.assistant, only listeners{raised}"


def _repeated(records: Sequence[Record], replicas: Replicas) -> str:
    """Return the reason of most of them; that a predicate refused a bot's own event says the least."""
    counts = Counter(record.reason for record in records)
    reason, count = max(counts.items(), key=lambda pair: ("is_human" not in pair[0], pair[1]))
    return reason if count == 1 else f"{reason}, for {count:,} webhooks"


def _held(records: Sequence[Record], replicas: Replicas) -> str:
    due = records[-1].due_at
    return f"not yet, {records[-1].reason}{'' if due is None else f', due {clock(due, replicas.now)}'}"


def _pending(records: Sequence[Record], replicas: Replicas) -> str:
    waits = "1 webhook waits" if len(records) == 1 else f"{len(records):,} webhooks wait"
    return f"{waits} for a decision{', and no trigger is running' if replicas.none_runs else ''}"


def _unhandled(records: Sequence[Record], replicas: Replicas) -> str:
    return f"no predicate for what came ({', '.join(sorted({record.type for record in records}))})"


SAID: Final[dict[State, Callable[[Sequence[Record], Replicas], str]]] = {
    State.FIRED: _fired,
    State.FAILED: _repeated,
    State.HELD: _held,
    State.PENDING: _pending,
    State.QUARANTINED: _repeated,
    State.SKIPPED: _repeated,
    State.UNHANDLED: _unhandled,
    State.NOTIFIED: _unhandled,
}
"""By the state of a meeting's webhooks, the most telling first, why there was no assistant."""
