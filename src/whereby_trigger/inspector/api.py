"""The inspector's JSON: the same records as on its pages, masked as there. Pure; openapi.json describes it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from whereby_trigger import timeline
from whereby_trigger.inspector.masking import body_masked, error_shown
from whereby_trigger.inspector.reads import HealthPage, LivePage, RoomNow, RoomPage, WebhookPage, by_reason
from whereby_trigger.store import ActionRecord, Record, RefusalCount, Room, RunRecord
from whereby_trigger.times import utc

OPENAPI: Final = (Path(__file__).parent / "openapi.json").read_bytes()


def encoded(value: Any) -> bytes:
    """Return JSON in ASCII: nothing in it turns the direction of writing, or colours a terminal."""
    return json.dumps(value, separators=(",", ":")).encode()


def webhooks(page: LivePage) -> dict[str, Any]:
    return {"webhooks": [_webhook(record) for record in page.records], "more": page.more or page.back_to is not None}


def webhook(page: WebhookPage) -> dict[str, Any]:
    record = page.record
    return _webhook(record) | {
        "replica": record.owner,
        "body": body_masked(record.body),
        "errors": [error_shown(error, revealed=False) for error in record.errors],
        "assistants": [_entry(room) | {"runs": [_run(run) for run in runs]} for room, runs in page.assistants],
        "actions": [_action(action) for action in page.actions],
    }


def rooms(found: Sequence[RoomNow]) -> dict[str, Any]:
    return {"rooms": [_room(room) for room in found]}


def room(page: RoomPage) -> dict[str, Any]:
    """Return a room's timeline, as `rooms show --json` has it, and who is there now."""
    meetings = tuple(
        structs.replace(meeting.history, entries=tuple(one.entry for one in meeting.entries))
        for meeting in page.meetings
    )
    told = timeline.as_object(timeline.Timeline(page.key, page.answer, meetings, not page.more))
    now = _room(RoomNow(page.key, page.presence, page.entry, None))
    return {**now, "since": utc(page.since), "until": utc(page.until), **told}


def refusals(counts: Sequence[RefusalCount], since: float, until: float) -> dict[str, Any]:
    reasons = [
        {"reason": one.reason, "status": one.status, "count": one.count, "last_at": utc(one.last)}
        for one in by_reason(counts)
    ]
    return {"since": utc(since), "until": utc(until), "refusals": reasons}


def health(page: HealthPage, here: dict[str, Any] | None) -> dict[str, Any]:
    work = page.workload
    return {
        "pending": work.pending,
        "held": work.held,
        "oldest_pending_at": None if work.oldest is None else utc(work.oldest),
        "assistants": {str(state): count for state, count in work.rooms.items()},
        "newest_webhook_at": None if page.newest is None else utc(page.newest.received_at),
        "replicas": page.owners,
        "replica": here,
    }


def _webhook(record: Record) -> dict[str, Any]:
    """Return what is said of a delivery: of what the sender wrote, only the id, the type and the room."""
    return {
        "id": record.id,
        "type": record.type,
        "room": record.room,
        "state": str(record.state),
        "reason": record.reason,
        "attempts": record.attempts,
        "deliveries": record.deliveries,
        "received_at": utc(record.received_at),
        "decided_at": None if record.decided_at is None else utc(record.decided_at),
        "due_at": None if record.due_at is None else utc(record.due_at),
    }


def _room(room: RoomNow) -> dict[str, Any]:
    presence = room.presence
    return {
        "room": room.key,
        "humans": presence.humans,
        "bots": presence.bots,
        "changed_at": None if presence.changed_at is None else utc(presence.changed_at.timestamp()),
        "last_webhook_at": None if room.last is None else utc(room.last),
        "assistant": None if room.entry is None else _entry(room.entry),
    }


def _entry(room: Room) -> dict[str, Any]:
    return {
        "id": room.id,
        "state": str(room.state),
        "attempt": room.attempt,
        "since": utc(room.since),
        "replica": room.owner,
        "reason": room.reason or room.stop or "",
    }


def _run(run: RunRecord) -> dict[str, Any]:
    """Return what is said of a run: not what it raised or wrote, which may name a person."""
    return {
        "id": run.id,
        "attempt": run.attempt,
        "replica": run.replica,
        "started_at": utc(run.started_at),
        "live_at": None if run.live_at is None else utc(run.live_at),
        "ended_at": None if run.ended_at is None else utc(run.ended_at),
        "outcome": None if run.outcome is None else str(run.outcome),
        "reason": run.reason,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "exception": run.exception,
    }


def _action(action: ActionRecord) -> dict[str, Any]:
    return {"at": utc(action.at), "actor": action.actor, "action": action.action}
