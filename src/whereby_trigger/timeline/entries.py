"""The entries of a timeline: one thing that happened, in words for people and in fields for programs. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from whereby_trigger.errors import DecodeError
from whereby_trigger.store import (
    MINUTE,
    ActionKind,
    ActionRecord,
    Record,
    RefusalCount,
    ReplicaEnding,
    ReplicaRecord,
    Room,
    RoomState,
    RunOutcome,
    RunRecord,
    State,
    count_in,
    session_of,
)
from whereby_trigger.webhook import RoomSessionEnded, RoomSessionStarted, RoomWebhook, decode

PROMPT: Final = 5.0
"""Seconds up to which a decision, or the start of an assistant, is not worth a line of its own."""

TOGETHER: Final = 5 * MINUTE
"""Seconds up to which refusals for the same reason are one line."""

SHORT_WEBHOOK: Final = 12
"""Characters of a webhook's id that people read."""

SHORT: Final = 8
"""Characters of a replica's id that people read."""


class Kind(StrEnum):
    """Name what an entry of a timeline says."""

    REPLICA = "replica"
    """A replica started or ended."""

    ACTED = "acted"
    """A person did something by hand."""

    WEBHOOK = "webhook"
    """A webhook came. If its decision came within PROMPT seconds, the entry says it."""

    DECIDED = "decided"
    """A webhook was decided later than it came: after a hold, a replay, or a wait."""

    WAITING = "waiting"
    """The room asked for an assistant, and waited for a slot, or somebody asked by hand."""

    STARTED = "started"
    LIVE = "live"
    OVER = "over"
    """A run of an assistant started, went live, ended."""

    UNSTARTED = "unstarted"
    """The room no longer waits, and had no run."""

    REFUSED = "refused"
    """Deliveries were refused. Nobody knows of which room they were."""


class Entry(Struct, frozen=True):
    """Hold one thing that happened: when, what, in words for people, and in fields for programs.

    Times are seconds since the epoch; `until` is None except for what lasted. No person's name is in it, and nothing
    that user code raised or wrote, except for types of exceptions.
    """

    at: float
    kind: Kind
    words: str
    fields: dict[str, Any]
    until: float | None = None


RUN: Final = frozenset({Kind.STARTED, Kind.LIVE, Kind.OVER})
ORDER: Final = {kind: list(Kind).index(Kind.STARTED if kind in RUN else kind) for kind in Kind}
"""What is said first of what happened at the same moment; runs are told one after the other."""


class Seen:
    """Hold a webhook with what it says of its meeting, and of who is in the room."""

    def __init__(self, key: str, record: Record) -> None:
        self.record = record
        self.session_id: str | None = None
        self.starts = self.ends = False
        self.humans: int | None = None
        self.bots: int | None = None
        self.counted_at: float | None = None
        try:
            webhook = decode(record.body)
        except DecodeError:
            return
        if isinstance(webhook, RoomWebhook):
            self.session_id = session_of(webhook)
            self.starts, self.ends = isinstance(webhook, RoomSessionStarted), isinstance(webhook, RoomSessionEnded)
            count = count_in(webhook, key, record.received_at)
            if count is not None:
                self.humans, self.bots, self.counted_at = count.humans, count.bots, count.at


def of_webhook(seen: Seen) -> list[Entry]:
    record = seen.record
    fields: dict[str, Any] = {
        "id": record.id,
        "type": record.type,
        "session_id": seen.session_id,
        "state": str(record.state),
        "reason": record.reason,
        "attempts": record.attempts,
        "deliveries": record.deliveries,
        "humans": seen.humans,
        "bots": seen.bots,
        "counted_at": seen.counted_at,
        "listeners_raised": listeners_that_raised(record),
    }
    told = record.type or "a delivery that is no webhook"
    if seen.humans is not None and seen.bots is not None:
        told += f" ({people(seen.humans, seen.bots)})"
    if record.deliveries > 1:
        told += f", delivered {record.deliveries} times"
    later = record.decided_at is not None and record.decided_at - record.received_at > PROMPT
    if later:
        return [
            Entry(record.received_at, Kind.WEBHOOK, told, fields),
            Entry(record.decided_at or 0.0, Kind.DECIDED, f"{record.type} is decided: {_decided(record)}", fields),
        ]
    return [Entry(record.received_at, Kind.WEBHOOK, f"{told}: {_decided(record)}", fields)]


def people(humans: int, bots: int) -> str:
    """Return who is in a room in words."""
    return ", ".join([_count(humans, "human"), *([_count(bots, "bot")] if bots else [])])


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _decided(record: Record) -> str:
    if record.state is State.PENDING:
        return "waits for its decision"
    due = f", due {clock(record.due_at)}" if record.state is State.HELD and record.due_at is not None else ""
    return f"{record.state}, {record.reason}{due}{listeners_in_words(record)}"


def listeners_that_raised(record: Record) -> list[tuple[str, str]]:
    """Return the listeners that raised, each with the type of what it raised, and nothing of its text.

    Of one that was cut off, it is what happened, if that is all that was stored.
    """
    found = []
    for error in record.errors:
        who, colon, what = error.partition(": ")
        if colon and who.startswith("listener "):
            # With `redact`, errors are stored in brief: "raised KeyError", "was cancelled".
            brief = what.removeprefix("raised ").partition(" (at ")[0].partition(":")[0]
            found.append((who.removeprefix("listener "), brief))
    return found


def listeners_in_words(record: Record) -> str:
    """Return what became of the listeners that raised, as the end of a sentence."""
    what_each_did = [
        f"; listener {name} {f'raised {what}' if what.isidentifier() else what}"
        for name, what in listeners_that_raised(record)
    ]
    return "".join(what_each_did)


def of_entry(room: Room, runs: Sequence[RunRecord]) -> list[Entry]:
    own = [run for run in runs if run.entry == room.id]
    first = min((run.started_at for run in own), default=None)
    fields: dict[str, Any] = {"entry": room.id, "state": str(room.state), "reason": reason_of(room), "attempt": 0}
    waited_until = first if first is not None else room.since if room.state not in OPEN else None
    entries = []
    waits = waited_until is None or waited_until - room.queued_at > PROMPT
    if room.webhook is None or waits:
        words = "an assistant is asked for" + (" by hand" if room.webhook is None else "")
        if waited_until is None:
            words += ", and waits for a free slot"
        elif waits:
            words += f", and waits {lasted(waited_until - room.queued_at)} for a free slot"
        entries.append(Entry(room.queued_at, Kind.WAITING, words, fields, waited_until))
    if not own and room.state not in OPEN:
        entries.append(Entry(room.since, Kind.UNSTARTED, f"no assistant starts: {reason_of(room)}", fields))
    return entries


OPEN: Final = frozenset({RoomState.WAITING, RoomState.STARTING, RoomState.LIVE, RoomState.ENDING})


def reason_of(room: Room) -> str:
    return room.reason or room.stop or ""


def of_run(run: RunRecord) -> list[Entry]:
    fields: dict[str, Any] = {
        "entry": run.entry,
        "run": run.id,
        "attempt": run.attempt,
        "replica": run.replica,
        "webhook": run.webhook,
        "started_at": run.started_at,
        "live_at": run.live_at,
        "ended_at": run.ended_at,
        "outcome": None if run.outcome is None else str(run.outcome),
        "reason": run.reason,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "exception": run.exception,
    }
    where = "" if run.replica is None else f" on replica {run.replica[:SHORT]}"
    at_once = run.live_at is not None and run.live_at - run.started_at <= PROMPT
    live = " and is live" if at_once else ""
    which = "the assistant" if run.attempt == 1 else f"attempt {run.attempt}"
    entries = [Entry(run.started_at, Kind.STARTED, f"{which} starts{where}{live}", fields, run.ended_at)]
    if run.live_at is not None and not at_once:
        entries.append(Entry(run.live_at, Kind.LIVE, f"{which} is live", fields))
    if run.ended_at is not None:
        entries.append(Entry(run.ended_at, Kind.OVER, f"{which} {_over(run)}", fields))
    return entries


def run_in_words(run: RunRecord) -> str:
    """Return a run in one sentence: how it started, and how it ended."""
    return "; ".join(entry.words for entry in of_run(run))


def _over(run: RunRecord) -> str:
    told = shortened(run.reason, run.replica)
    match run.outcome:
        case RunOutcome.FAILED | RunOutcome.EXHAUSTED:
            return f"failed: {told}"
        case RunOutcome.REFUSED:
            return f"gave up: {told}"
        case RunOutcome.REPLICA_DIED:
            return f"is gone: {told}"
        case RunOutcome.LEFT:
            return f"left: {told}" if told else "left"
        case _:
            return f"is over: {told}"


def shortened(text: str, replica: str | None) -> str:
    """Return a reason with the id of a replica as people read it."""
    return text if replica is None else text.replace(replica, replica[:SHORT])


def of_refusals(refusals: Sequence[RefusalCount]) -> list[Entry]:
    """Return refusals as entries: those of one reason that follow each other, by any replica, are one."""
    entries: list[Entry] = []
    open: dict[tuple[str, int], tuple[float, float, int]] = {}

    def close(what: tuple[str, int]) -> None:
        (reason, status), (first, last, count) = what, open[what]
        answer = f"answered {status}" if status else "closed without an answer"
        words = f"{'1 delivery' if count == 1 else f'{count:,} deliveries'} refused: {reason}, {answer}"
        fields: dict[str, Any] = {"reason": reason, "status": status, "count": count}
        entries.append(Entry(first, Kind.REFUSED, words, fields, last + MINUTE))

    for each in sorted(refusals, key=lambda each: each.minute):
        what = (each.reason, each.status)
        if what in open and each.minute - open[what][1] > TOGETHER:
            close(what)
            del open[what]
        first, _, count = open.get(what, (each.minute, each.minute, 0))
        open[what] = (first, each.minute, count + each.count)
    for what in open:
        close(what)
    return entries


ACTION_WORDS: Final[dict[str, str]] = {
    ActionKind.REPLAY: "replay of webhook {webhook}",
    ActionKind.DRY_RUN: "the predicate is asked again about webhook {webhook}, without effect",
    ActionKind.START: "an assistant is asked for",
    ActionKind.STOP: "the assistant is asked to leave",
}
"""What is said of each action."""


def action_in_words(action: ActionRecord) -> str:
    """Return what a person did by hand, and through what, in one sentence."""
    told = ACTION_WORDS.get(action.action, action.action).format(webhook=(action.webhook or "")[:SHORT_WEBHOOK])
    return f"by hand, in the {action.actor}: {told}"


def of_action(action: ActionRecord) -> Entry:
    fields: dict[str, Any] = {"action": action.action, "actor": action.actor, "id": action.webhook}
    return Entry(action.at, Kind.ACTED, action_in_words(action), fields)


def of_replicas(replicas: Sequence[ReplicaRecord], runs: Sequence[RunRecord], now: float) -> list[Entry]:
    ours = {run.replica for run in runs}
    entries = []
    for each in replicas:
        starts: dict[str, Any] = {"replica": each.id, "ending": None}
        entries.append(Entry(each.started_at, Kind.REPLICA, f"replica {each.id[:SHORT]} starts", starts))
        if each.ended_at is not None and each.ending is not None:
            also = ", which had the assistant" if each.id in ours and each.ending is not ReplicaEnding.STOPPED else ""
            words = f"replica {each.id[:SHORT]}{also}{',' if also else ''} {each.ending}"
            ends: dict[str, Any] = {"replica": each.id, "ending": str(each.ending)}
            entries.append(Entry(each.ended_at, Kind.REPLICA, words, ends))
    return [entry for entry in entries if entry.at <= now]


def lasted(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def clock(moment: float, now: float | None = None) -> str:
    """Return a local time of day, with its date if that is not the date of `now`."""
    local = datetime.fromtimestamp(moment, UTC).astimezone()
    if now is not None and datetime.fromtimestamp(now, UTC).astimezone().date() != local.date():
        return local.strftime("%Y-%m-%d %H:%M")
    return local.strftime("%H:%M:%S" if now is None else "%H:%M")
