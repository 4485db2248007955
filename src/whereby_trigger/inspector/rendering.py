"""The templates, and what they call: times, names and states as people read them. Everything is escaped."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from whereby_trigger.inspector.live import Folded
from whereby_trigger.inspector.masking import MASK, body_shown, cut, error_shown, shown, shown_lines
from whereby_trigger.inspector.picture import RUN_KINDS, SHAPES, Picture, draw
from whereby_trigger.inspector.reads import RoomPage, ShownMeeting
from whereby_trigger.store import Record, RefusalReason, RunOutcome, RunRecord, State
from whereby_trigger.timeline import action_in_words, people, run_in_words
from whereby_trigger.times import utc
from whereby_trigger.webhook import WEBHOOK_TYPES

HERE: Final = Path(__file__).parent
TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

STATIC: Final[Mapping[str, tuple[bytes, str]]] = {
    name: ((HERE / "static" / name).read_bytes(), TYPES[Path(name).suffix])
    for name in ("inspector.css", "inspector.js", "icon.svg")
}
"""The files that are served, and no others: no path is ever made from an address."""

VERSION: Final = hashlib.sha256(b"".join(content for content, _ in STATIC.values())).hexdigest()[:12]

WHAT_TO_DO: Final[Mapping[str, str]] = {
    RefusalReason.NO_SIGNATURE: "Something other than Whereby sends here, or the webhook was made without a secret.",
    RefusalReason.WRONG_SIGNATURE: "Compare WHEREBY_WEBHOOK_SECRET with the webhook's secret in Whereby's dashboard.",
    RefusalReason.STALE_SIGNATURE: "Set this machine's clock: it is ahead, or the delivery was held up on its way.",
    RefusalReason.FUTURE_SIGNATURE: "Set this machine's clock: it is behind.",
    RefusalReason.NOT_LOCAL: "Set WHEREBY_WEBHOOK_SECRET: unsigned deliveries are taken from this machine only.",
    RefusalReason.WRONG_PATH: "Compare the webhook's URL in Whereby's dashboard with the setting path.",
    RefusalReason.WRONG_METHOD: "Whereby sends POSTs: something else calls here.",
    RefusalReason.STORE_FAILED: "Look at Health and at the log: the store takes no writes.",
    RefusalReason.STORE_SLOW: "Look at the store's disk or database: a write took longer than Whereby waits.",
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
    """Return a time of day, in local time."""
    return _local(time).strftime("%H:%M:%S")


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
