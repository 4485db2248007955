"""Runs and the entries that they belong to, as people and programs read them."""

from collections.abc import Iterable
from typing import Any

from whereby_trigger.cli.output import local
from whereby_trigger.store import Room, RoomState, RunOutcome, RunRecord
from whereby_trigger.times import utc

NOT_RECORDED = "its end was not recorded"


def in_words(room: Room) -> str:
    """Return what has become of an entry, for the end of a sentence that begins with its assistant."""
    reason = room.reason or room.stop or ""
    told = f": {reason}" if reason else ""
    match room.state:
        case RoomState.WAITING:
            return f"waits{told}" if room.attempt else "waits for an assistant"
        case RoomState.STARTING:
            return f"starts, attempt {room.attempt}"
        case RoomState.LIVE:
            return "is live" if room.attempt == 1 else f"is live, attempt {room.attempt}"
        case RoomState.ENDING:
            return f"is ending{told}"
        case RoomState.ENDED:
            return f"ended{told}" if room.attempt else f"never started{told}"
        case RoomState.FAILED:
            return f"failed{told}"


def end_in_words(run: RunRecord, room: Room | None) -> str:
    """Return how a run ended, or that it goes on; `room` is its entry."""
    if run.outcome is None:
        goes_on = room is not None and (room.owner, room.attempt) == (run.replica, run.attempt)
        return "is not over" if goes_on else NOT_RECORDED
    if run.outcome in (RunOutcome.FAILED, RunOutcome.REFUSED, RunOutcome.EXHAUSTED, RunOutcome.REPLICA_DIED):
        return run.reason
    how = [f"exited with {run.exit_code}"] if run.exit_code else []
    how += [f"ended by signal {run.signal}"] if run.signal is not None else []
    how += [f"raised {run.exception}"] if run.exception is not None else []
    return f"{run.outcome}: {', '.join([run.reason, *how])}"


def run_as_line(run: RunRecord, room: Room | None) -> str:
    """Return a run in one line, with times of day."""
    parts = [f"run {run.id}", f"attempt {run.attempt}", f"started {local(run.started_at)}"]
    if run.live_at is not None:
        parts.append(f"live {_clock(run.live_at)}")
    if run.ended_at is not None:
        parts.append(f"over {_clock(run.ended_at)}")
    return f"{', '.join(parts)}: {end_in_words(run, room)}"


def run_as_lines(run: RunRecord, room: Room) -> list[str]:
    """Return all about a run; what it raised or wrote is set off, so that it cannot be taken for ours."""
    seen = {
        "replica": run.replica,
        "pid": run.pid,
        "exit code": run.exit_code,
        "signal": run.signal,
        "exception": run.exception,
    }
    told = ", ".join(f"{name} {value}" for name, value in seen.items() if value is not None)
    output = [f"  | {line}" for line in run.output.splitlines()]
    return ["", run_as_line(run, room), *([f"  {told}"] if told else []), *output]


def run_as_object(run: RunRecord) -> dict[str, Any]:
    """Return all fields of a run, including what it raised or wrote."""
    return {
        "id": run.id,
        "attempt": run.attempt,
        "replica": run.replica,
        "pid": run.pid,
        "started_at": utc(run.started_at),
        "live_at": None if run.live_at is None else utc(run.live_at),
        "ended_at": None if run.ended_at is None else utc(run.ended_at),
        "outcome": run.outcome,
        "reason": run.reason,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "exception": run.exception,
        "output": run.output,
    }


def entry_as_object(room: Room) -> dict[str, Any]:
    """Return what has become of an entry."""
    return {
        "id": room.id,
        "state": room.state,
        "attempt": room.attempt,
        "reason": room.reason or room.stop or "",
        "webhook": room.webhook,
    }


def entry_as_lines(room: Room, runs: Iterable[RunRecord]) -> list[str]:
    """Return an entry and its runs, a line each."""
    return [f"entry {room.id} {in_words(room)}", *(f"  {run_as_line(run, room)}" for run in runs)]


def _clock(moment: float) -> str:
    return local(moment)[len("2026-01-01 ") : len("2026-01-01 22:14:07")]
