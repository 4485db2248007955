"""What a page was asked to show, read from its address. Pure."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from whereby_trigger.errors import ConfigError
from whereby_trigger.store import Query, Record, State
from whereby_trigger.webhook import room_from_url, room_path

LONGEST: Final = 2048
"""Characters of a parameter that are read."""

UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
LATEST: Final = 253_370_764_800.0
_AGO: Final = re.compile(r"(?:\d{1,7}[dhms])+", re.ASCII)


class Filters(Struct, frozen=True):
    """Select deliveries: what was typed, and what it means. `wrong` says which of it means nothing."""

    room: str = ""
    type: str = ""
    state: str = ""
    since: str = ""
    until: str = ""
    wrong: tuple[str, ...] = ()
    selected: Query = Query()

    @property
    def any(self) -> bool:
        return bool(self.room or self.type or self.state or self.since or self.until)

    def matches(self, record: Record) -> bool:
        """Return True if a delivery is one of those selected, whenever it came."""
        query = self.selected
        if query.state is not None and record.state is not query.state:
            return False
        if query.type is not None and record.type != query.type:
            return False
        if query.room is None:
            return True
        if record.room is None:
            return False
        return ("/" + record.room.partition("/")[2] if query.room.startswith("/") else record.room) == query.room


def filters_of(parameters: Mapping[str, str], now: float) -> Filters:
    """Read the filters of an address; `now` is in seconds since the epoch."""
    typed = {name: parameters.get(name, "").strip()[:LONGEST] for name in ("room", "type", "state", "since", "until")}
    wrong: list[str] = []
    room = None
    if typed["room"]:
        try:
            room = room_selected(typed["room"])
        except ConfigError:
            wrong.append("room is a name, a key or a URL like https://your-subdomain.whereby.com/your-room")
    state = None
    if typed["state"]:
        if typed["state"] in set(State):
            state = State(typed["state"])
        else:
            wrong.append("there is no such state")
    times: dict[str, float | None] = {}
    for name in ("since", "until"):
        times[name] = moment(typed[name], now) if typed[name] else None
        if typed[name] and times[name] is None:
            wrong.append(f"{name} is a time like 2h (ago), 22:14 or 2026-11-28 22:14")
    query = Query(room=room, type=typed["type"] or None, state=state, since=times["since"], until=times["until"])
    return Filters(**typed, wrong=tuple(wrong), selected=query)


def room_selected(text: str) -> str:
    """Return the key of a room from its URL or its key; from its name, the path with which its key ends.

    Raises ConfigError if it is a URL, but not one of a Whereby room.
    """
    if "://" in text:
        return room_from_url(text).key
    host, slash, name = text.partition("/")
    if host and slash and "." in host:
        return f"{host.lower()}/{quote(name, safe='/%', errors='surrogateescape')}"
    return room_path(text)


def moment(text: str, now: float) -> float | None:
    """Return a time in seconds since the epoch: `2h` ago, a time of today, an ISO 8601 date, or seconds; else None.

    What has no zone is local time.
    """
    try:
        if _AGO.fullmatch(text):
            return max(0.0, now - sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)([dhms])", text)))
        if re.fullmatch(r"\d{9,11}(?:\.\d{1,6})?", text, re.ASCII):
            return min(LATEST, float(text))
        if re.fullmatch(r"\d{1,2}:\d\d(?::\d\d)?", text, re.ASCII):
            today = datetime.fromtimestamp(now).astimezone().date()
            clock = text if len(text.partition(":")[0]) == 2 else f"0{text}"
            found = datetime.fromisoformat(f"{today}T{clock}").timestamp()
            return found if found <= now else found - 86400
        return min(LATEST, max(0.0, datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError, OSError):
        return None
