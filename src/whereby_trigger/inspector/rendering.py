"""What was read, as pages for people and as JSON for programs: the same records, masked alike.

On pages, everything is escaped. openapi.json describes the JSON. A webhook's body is shown by a list of the fields that
say nothing about a person. Every other value is masked, also those of fields that Whereby adds tomorrow.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import structs

from whereby_trigger import timeline
from whereby_trigger.inspector.live import Folded
from whereby_trigger.inspector.picture import RUN_KINDS, SHAPES, Picture, draw
from whereby_trigger.inspector.reads import (
    HealthPage,
    LivePage,
    RoomNow,
    RoomPage,
    RoomsPage,
    ShownMeeting,
    WebhookPage,
    by_reason,
)
from whereby_trigger.store import ActionRecord, Record, RefusalCount, RefusalReason, Room, RunOutcome, RunRecord, State
from whereby_trigger.text import printable, utc
from whereby_trigger.timeline import action_in_words, people, run_in_words
from whereby_trigger.webhook import WEBHOOK_TYPES, masked

HERE: Final = Path(__file__).parent
TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

STATIC: Final[Mapping[str, tuple[bytes, str]]] = {
    name: ((HERE / "static" / name).read_bytes(), TYPES[Path(name).suffix])
    for name in ("inspector.css", "inspector.js", "icon.svg")
}
"""The files that are served, and no others: no path is ever made from an address."""

VERSION: Final = hashlib.sha256(b"".join(content for content, _ in STATIC.values())).hexdigest()[:12]

MASK: Final = "••••••"

LONGEST_BODY: Final = 64 * 1024
"""Characters of a body that a page shows: the first ones."""

WHAT_TO_DO: Final[Mapping[str, str]] = {
    RefusalReason.NO_SIGNATURE: "Something other than Whereby sends here, or a proxy drops Whereby-Signature.",
    RefusalReason.MALFORMED_SIGNATURE: "Something other than Whereby sends here, or a proxy sends the header twice.",
    RefusalReason.WRONG_SIGNATURE: "Compare WHEREBY_WEBHOOK_SECRET with the webhook's secret in Whereby's dashboard.",
    RefusalReason.STALE_SIGNATURE: "Set this machine's clock: it is ahead, or the delivery was held up on its way.",
    RefusalReason.FUTURE_SIGNATURE: "Set this machine's clock: it is behind.",
    RefusalReason.NOT_LOCAL: "Set WHEREBY_WEBHOOK_SECRET: unsigned deliveries are taken from this machine only.",
    RefusalReason.NO_WEBHOOK: "Send a webhook: without a secret, a body that is none is refused.",
    RefusalReason.INVALID_HTTP: "Speak HTTP here: TLS ends in the proxy before the trigger.",
    RefusalReason.WRONG_PATH: "Compare the webhook's URL in Whereby's dashboard with the setting path.",
    RefusalReason.WRONG_METHOD: "Whereby sends POSTs: something else calls here.",
    RefusalReason.INCOMPLETE: "The sender, or the network, was too slow.",
    RefusalReason.TOO_LARGE: "Raise max_body if it was Whereby's.",
    RefusalReason.CROWDED: "Look at the store: it is too slow for what comes.",
    RefusalReason.STORE_FAILED: "Look at Health and at the log: the store takes no writes.",
    RefusalReason.STORE_SLOW: "Look at the store's disk or database: a write took longer than Whereby waits.",
    RefusalReason.INTERNAL_ERROR: "This is a bug of whereby-trigger: please report it.",
    RefusalReason.NOT_RUNNING: "Add the trigger's lifespan to the app that it is mounted in.",
    RefusalReason.STALLED: "The sender, or the network, did not finish a request within 10 s.",
    RefusalReason.HEADERS_TOO_LARGE: "Whereby sends no such headers: something else calls here.",
    RefusalReason.TOO_MANY_CONNECTIONS: "Keep others out by a firewall or proxy, or raise the limit of open files.",
}


class Pages:
    """Render pages from templates; nothing reaches a page but through autoescaping."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {
            "clock": clock,
            "moment": moment,
            "iso": utc,
            "seconds": seconds,
            "shown": shown,
            "lines": shown_lines,
            "cut": cut,
            "query": urlencode,
        }
        self._environment.globals |= {
            "VERSION": VERSION,
            "MASK": MASK,
            "STATES": [str(state) for state in State],
            "WEBHOOK_TYPES": list(WEBHOOK_TYPES),
            "SHAPES": SHAPES,
            "WHAT_TO_DO": WHAT_TO_DO,
            "people": people,
            "run_words": run_in_words,
            "heading": heading,
            "action_words": action_in_words,
            "run_kind": run_kind,
            "ended": ended,
            "body_shown": body_shown,
            "error_shown": error_shown,
            "room_parts": room_parts,
            "zone": zone,
        }
        rows = self._environment.get_template("rows.html").module
        self._row: Any = rows.row  # type: ignore[attr-defined]
        self._folded: Any = rows.folded_row  # type: ignore[attr-defined]

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        """Render a page."""
        return self._environment.get_template(name).render(values)

    def row(self, record: Record, base: str) -> str:
        """Render one delivery as a row of the table."""
        return str(self._row(record, base))

    def folded_row(self, folded: Folded, base: str) -> str:
        """Render deliveries of one room as one row."""
        counts: dict[str, int] = {}
        for record in folded.records:
            counts[str(record.state)] = counts.get(str(record.state), 0) + 1
        return str(self._folded(folded, counts, base))

    def picture(self, page: RoomPage) -> Picture:
        """Draw a room's timeline."""
        return draw(page.entries, page.since, page.until)


def clock(time: float) -> str:
    """Return a time of day, in local time, with its date if that is not today."""
    local, today = _local(time), datetime.now(UTC).astimezone().date()
    return local.strftime("%H:%M:%S" if local.date() == today else "%d %b %H:%M:%S")


def moment(time: float) -> str:
    """Return a date and time, in local time."""
    return _local(time).strftime("%d %b %Y %H:%M:%S")


def heading(meeting: ShownMeeting) -> str:
    """Return what is said above the entries of a meeting."""
    history = meeting.history
    if history.session_id is None:
        return f"Outside of a known meeting, from {moment(history.began)}"
    over = f"over {clock(history.ended)}" if history.over else "not over, as far as is known"
    return f"Meeting of {moment(history.began)}, {over}"


def ended(run: RunRecord) -> str:
    """Return in a word or two how a run ended, or that it goes on."""
    if run.outcome is not None:
        return str(run.outcome)
    return "running" if run.ended_at is None else "ended"


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


def zone() -> str:
    """Return the name of the local time zone."""
    return datetime.now(UTC).astimezone().tzname() or "local time"


def _local(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC).astimezone()


def room_parts(key: str) -> tuple[str, str]:
    """Return a room's host and its path, for a page."""
    host, slash, path = shown(key).partition("/")
    return host, f"{slash}{path}"


def run_kind(outcome: str | None) -> str:
    """Return how the end of a run is shown."""
    return RUN_KINDS[None if outcome is None else RunOutcome(outcome)]


OPENAPI: Final = (Path(__file__).parent / "openapi.json").read_bytes()


def encoded(value: Any) -> bytes:
    """Return JSON in ASCII: nothing in it turns the direction of writing, or colours a terminal."""
    return json.dumps(value, separators=(",", ":")).encode()


def webhooks_as_object(page: LivePage) -> dict[str, Any]:
    return {"webhooks": [_webhook(record) for record in page.records], "more": page.more or page.back_to is not None}


def webhook_as_object(page: WebhookPage) -> dict[str, Any]:
    record = page.record
    return _webhook(record) | {
        "replica": record.owner,
        "body": body_masked(record.body),
        "errors": [error_shown(error, revealed=False) for error in record.errors],
        "assistants": [_entry(room) | {"runs": [_run(run) for run in runs]} for room, runs in page.assistants],
        "actions": [_action(action) for action in page.actions],
    }


def rooms_as_object(page: RoomsPage) -> dict[str, Any]:
    return {"rooms": [_room(room) for room in page.rooms], "more": page.more}


def room_as_object(page: RoomPage) -> dict[str, Any]:
    """Return a room's timeline, as `rooms show --json` has it, and who is there now."""
    meetings = tuple(
        structs.replace(meeting.history, entries=tuple(one.entry for one in meeting.entries))
        for meeting in page.meetings
    )
    told = timeline.as_object(timeline.Timeline(page.key, page.answer, meetings, not page.more))
    now = _room(RoomNow(page.key, page.presence, page.entry, None))
    return {**now, "since": utc(page.since), "until": utc(page.until), **told}


def refusals_as_object(counts: Sequence[RefusalCount], since: float, until: float) -> dict[str, Any]:
    reasons = [
        {"reason": one.reason, "status": one.status, "count": one.count, "last_at": utc(one.last)}
        for one in by_reason(counts)
    ]
    return {"since": utc(since), "until": utc(until), "refusals": reasons}


def health_as_object(page: HealthPage, here: dict[str, Any] | None) -> dict[str, Any]:
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


def shown(text: str | None) -> str:
    """Return stored text for a page: control, line-breaking and bidirectional characters are escaped."""
    return "" if text is None else printable(text)


def shown_lines(text: str) -> str:
    """Return stored text of several lines for a page."""
    return printable(text, keep="\n\t")


def body_shown(body: bytes, *, revealed: bool) -> str:
    """Return a webhook's body as indented JSON; unless revealed, values that may say something of a person masked.

    A body that is no JSON says what it likes, so it is shown only if revealed.
    """
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return cut(shown_lines(text)) if revealed else f"{MASK} ({len(body)} bytes that are no JSON)"
    shape = value if revealed else masked(value, MASK)
    return cut(shown_lines(json.dumps(shape, indent=2, ensure_ascii=False)))


def body_masked(body: bytes) -> Any:
    """Return a webhook's body as JSON with values masked that may say something of a person; None if it is no JSON."""
    try:
        return masked(json.loads(body.decode("utf-8", "replace")), MASK)
    except (ValueError, RecursionError):
        return None


def cut(text: str) -> str:
    """Return the first characters of a long text, and how many are left out."""
    if len(text) <= LONGEST_BODY:
        return text
    return f"{text[:LONGEST_BODY]}\n… {len(text) - LONGEST_BODY} more characters"


def error_shown(error: str, *, revealed: bool) -> str:
    """Return the error of user code, which may quote what it was given: unless revealed, only where it came from."""
    if revealed:
        return shown_lines(error)
    return f"{shown(error.partition(':')[0][:120])}: {MASK}"
