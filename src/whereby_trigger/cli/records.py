"""How a stored webhook is shown: as a row, as a JSON object, or in full."""

import json
from datetime import UTC, datetime
from typing import Any

from whereby_trigger.store import Record

HEADER = ("received", "id", "type", "room", "state", "reason")
SHORT_ID = 12


def as_row(record: Record, *, short: bool) -> tuple[str, ...]:
    """Give a row of the list; a short one holds the beginning of the id, and no year."""
    received = local(record.received_at)
    return (
        received[len("2026-") : len("2026-01-01 00:00:00")] if short else received,
        record.id[:SHORT_ID] if short else record.id,
        record.type or "-",
        record.room or "-",
        record.state,
        record.reason,
    )


def as_object(record: Record) -> dict[str, Any]:
    """Give what a list may tell: nothing that the sender wrote but the id, the type and the room."""
    return {
        "id": record.id,
        "type": record.type,
        "room": record.room,
        "state": record.state,
        "reason": record.reason,
        "attempts": record.attempts,
        "deliveries": record.deliveries,
        "received_at": utc(record.received_at),
        "decided_at": None if record.decided_at is None else utc(record.decided_at),
    }


def as_full_object(record: Record) -> dict[str, Any]:
    """Give everything, the errors of user code and the body included."""
    return as_object(record) | {
        "replica": record.owner,
        "errors": list(record.errors),
        "body": record.body.decode("utf-8", "replace"),
    }


def as_lines(record: Record) -> list[str]:
    """Return everything, for a person."""
    fields = [
        ("id", record.id),
        ("type", record.type or "-"),
        ("room", record.room or "-"),
        ("state", record.state),
        ("reason", record.reason or "-"),
        ("attempts", str(record.attempts)),
        ("deliveries", str(record.deliveries)),
        ("received", local(record.received_at)),
        ("decided", "-" if record.decided_at is None else local(record.decided_at)),
        ("replica", record.owner or "-"),
        *(("error", error) for error in record.errors),
    ]
    return [*(f"{name:<11} {value}" for name, value in fields), "", *_pretty(record.body).splitlines()]


def utc(moment: float) -> str:
    """Write a time as ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local(moment: float) -> str:
    """Write a time as the clock on the wall shows it."""
    return datetime.fromtimestamp(moment, UTC).astimezone().isoformat(" ", "seconds")


def _pretty(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
