"""What happened in a room in a time, in order and in words, from what a store holds of it. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from whereby_trigger.errors import DecodeError
from whereby_trigger.inspector.masking import shown
from whereby_trigger.store import (
    UNDECIDED,
    Record,
    RefusalCount,
    Room,
    RunOutcome,
    RunRecord,
    count_in,
)
from whereby_trigger.webhook import decode

BY_HAND: Final = "by hand"


class PeopleStep(Struct, frozen=True):
    """From a time on, so many humans and bots were in the room."""

    at: float
    humans: int
    bots: int


class Happening(Struct, frozen=True):
    """Describe one thing that happened: its kind, when, until when if it lasted, and in words.

    `lane` is where the picture shows it: a webhook's type, or how a run ended. `webhook` is the id to link to.
    """

    kind: str
    at: float
    words: str
    anchor: str
    until: float | None = None
    lane: str = ""
    state: str = ""
    webhook: str | None = None


class RoomHistory(Struct, frozen=True):
    """Hold what happened in a room between two times, oldest first."""

    since: float
    until: float
    steps: tuple[PeopleStep, ...]
    happenings: tuple[Happening, ...]


def timeline(
    key: str,
    since: float,
    until: float,
    records: Sequence[Record],
    runs: Sequence[RunRecord],
    entries: Sequence[Room],
    refusals: Sequence[RefusalCount],
    kinds: dict[RunOutcome | None, str],
) -> RoomHistory:
    """Put what a store holds of a room in order; `kinds` names how the end of a run is shown."""
    steps: list[PeopleStep] = []
    found: list[Happening] = []
    for record in sorted(records, key=lambda record: record.received_at):
        step = _step(key, record)
        if step is not None:
            steps.append(step)
        counted = "" if step is None else f" ({people(step.humans, step.bots)})"
        held_until = None
        if record.due_at is not None:
            held_until = min(record.due_at, record.due_at if record.decided_at is None else record.decided_at)
        found.append(
            Happening(
                "webhook",
                record.received_at,
                f"{shown(record.type) or 'unknown type'}{counted}: {record.state}{_because(record.reason)}",
                f"h-{len(found)}",
                held_until,
                shown(record.type) or "unknown type",
                str(record.state),
                record.id,
            )
        )
    for entry in entries:
        if since <= entry.queued_at < until:
            asked = BY_HAND if entry.webhook is None else "by a webhook"
            found.append(
                Happening("asked", entry.queued_at, f"An assistant was asked for {asked}.", "", webhook=entry.webhook)
            )
    for run in runs:
        found.append(
            Happening(
                "run", run.started_at, run_words(run), "", run.ended_at, kinds[run.outcome], ended(run), run.webhook
            )
        )
        if run.ended_at is not None and run.outcome in (RunOutcome.STOPPED, RunOutcome.REPLICA_DIED):
            stopped = run.outcome is RunOutcome.STOPPED
            words = "The assistant was asked to leave" if stopped else "The assistant was lost with its replica"
            words += f": {shown(run.reason)}" if run.reason else ""
            found.append(Happening("stop" if stopped else "death", run.ended_at, words, ""))
    found += _refused(refusals)
    found.sort(key=lambda one: one.at)
    numbered = [
        Happening(one.kind, one.at, one.words, f"h-{n}", one.until, one.lane, one.state, one.webhook)
        for n, one in enumerate(found)
        if since <= one.at < until or one.kind == "run"
    ]
    return RoomHistory(since, until, tuple(sorted(steps, key=lambda step: step.at)), tuple(numbered))


def people(humans: int | None, bots: int | None) -> str:
    """Return who is in a room, in words."""
    if humans is None or bots is None:
        return "not known"
    if not humans and not bots:
        return "nobody"
    parts = [f"{humans} human{'s' * (humans != 1)}"] + ([f"{bots} bot{'s' * (bots != 1)}"] if bots else [])
    return ", ".join(parts)


def ended(run: RunRecord) -> str:
    """Return in a word or two how a run ended, or that it goes on."""
    if run.outcome is not None:
        return str(run.outcome)
    return "running" if run.ended_at is None else "ended"


def run_words(run: RunRecord) -> str:
    """Return a run in one sentence."""
    words = f"Run {run.id}, attempt {run.attempt}: {ended(run)}{_because(run.reason)}"
    if run.ended_at is not None:
        words += f" after {seconds(run.ended_at - run.started_at)}"
    if run.live_at is not None:
        words += f"; live after {seconds(run.live_at - run.started_at)}"
    return words


def seconds(duration: float) -> str:
    """Return a duration as a person says it: 0.42 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d."""
    if duration < 10:
        return f"{max(0.0, duration):.2g} s"
    whole = int(duration)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    if whole < 86400:
        return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")
    return f"{whole // 86400} d"


def oldest_undecided(records: Sequence[Record]) -> float | None:
    """Return when the oldest webhook without a decision among some was received, or None."""
    return min((record.received_at for record in records if record.state in UNDECIDED), default=None)


def _step(key: str, record: Record) -> PeopleStep | None:
    try:
        count = count_in(decode(record.body), key, record.received_at)
    except DecodeError:
        return None
    return None if count is None else PeopleStep(count.at, count.humans, count.bots)


def _because(reason: str) -> str:
    return f", {shown(reason)}" if reason else ""


def _refused(refusals: Sequence[RefusalCount]) -> list[Happening]:
    minutes: dict[int, Counter[str]] = {}
    for one in refusals:
        minutes.setdefault(one.minute, Counter())[one.reason] += one.count
    told = {minute: ", ".join(f"{n} {shown(reason)}" for reason, n in each.items()) for minute, each in minutes.items()}
    return [
        Happening("refusal", float(minute), f"Refused in this minute, of all rooms: {words}", "")
        for minute, words in told.items()
    ]
