"""Text that comes from outside: made acceptable for every store and terminal, read as a time, or read from a file.

A time is `22:14`, `2026-11-28 22:14`, `2h` (ago) or ISO 8601. A file holds the value of one setting, such as a secret
that Docker or Kubernetes mounts.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from whereby_trigger.errors import ConfigError


def storable_text(text: str) -> str:
    """Return a text with what stores refuse replaced: NUL by U+FFFD, a lone surrogate by "?"."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def printable(text: str, keep: str = "") -> str:
    """Return a text with control, line-breaking and bidirectional characters escaped, but for those in `keep`.

    Anything from a payload (a room, an id, a type, a name) may hold them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


FORMS: Final = "write 22:14, '2026-11-28 22:14', 2h, 7d, or ISO 8601"
UNITS: Final = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}

_AGO: Final = re.compile(r"(?:\d{1,9}[wdhms])+", re.ASCII)
_CLOCK: Final = re.compile(r"\d{1,2}:\d\d(?::\d\d)?", re.ASCII)
_EARLIEST, _LATEST = 0.0, 253_370_764_800.0
"""1970, before which nothing happened, and the year 9999, after which there are no dates."""


def time_range(
    since: str | None,
    until: str | None,
    now: datetime | None = None,
    names: tuple[str, str] = ("since", "until"),
) -> tuple[float | None, float | None]:
    """Return the times of two texts, in seconds since 1970; None stays None.

    A time of day is the last one that has passed; as an `until`, it is the next one after `since`, if that is given.
    A date without a zone is local.

    Raises ConfigError, with the `names` of the two, if one of them is no time, or `since` is not before `until`.
    """
    now = datetime.now(UTC).astimezone() if now is None else now
    start = None if since is None else _parsed(names[0], since, now)
    if until is None:
        return start, None
    if start is not None and _CLOCK.fullmatch(until.strip()):
        end = _next_time_of_day(names[1], until, start)
    else:
        end = _parsed(names[1], until, now)
    if start is not None and end <= start:
        raise ConfigError(f"{names[1]} {until} is not after {names[0]} {since}: nothing lies between them")
    return start, end


def utc(moment: float) -> str:
    """Return a time, in seconds since 1970, as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parsed(name: str, text: str, now: datetime) -> float:
    words = text.strip()
    try:
        if _AGO.fullmatch(words):
            return min(_LATEST, max(_EARLIEST, now.timestamp() - _seconds(words)))
        if _CLOCK.fullmatch(words):
            return _last_time_of_day(_time(words), now)
        # A date without a zone is taken for local by timestamp().
        return min(_LATEST, max(_EARLIEST, datetime.fromisoformat(words).timestamp()))
    except (ValueError, OverflowError, OSError):
        raise _no_time(name, text) from None


def _seconds(words: str) -> float:
    found = re.findall(r"(\d+)([wdhms])", words)
    return sum(timedelta(**{UNITS[unit]: int(number)}).total_seconds() for number, unit in found)


def _last_time_of_day(clock: time, now: datetime) -> float:
    today = now.astimezone().date()
    moments = [*reversed(_on(today, clock)), *reversed(_on(today - timedelta(days=1), clock))]
    return next((moment for moment in moments if moment <= now.timestamp()), moments[-1])


def _next_time_of_day(name: str, text: str, start: float) -> float:
    try:
        clock = _time(text.strip())
        day = datetime.fromtimestamp(start, UTC).astimezone().date()
        moments = [*_on(day, clock), *_on(day + timedelta(days=1), clock)]
    except (ValueError, OverflowError):
        raise _no_time(name, text) from None
    return next((moment for moment in moments if moment > start), moments[-1])


def _on(day: date, clock: time) -> list[float]:
    """Return when a local time of day comes on a day: once, or twice if the clocks are set back."""
    first, second = (datetime.combine(day, clock.replace(fold=fold)).timestamp() for fold in (0, 1))
    # If they are set forward, and the time is left out, the second is before the first.
    return [first, second] if second > first else [first]


def _time(words: str) -> time:
    return time.fromisoformat(words.rjust(len("22:14") if words.count(":") == 1 else len("22:14:00"), "0"))


def _no_time(name: str, text: str) -> ConfigError:
    return ConfigError(f"{name} {text} is no time: {FORMS}")


LARGEST_FILE: Final = 64 * 1024
"""Bytes of a file that holds one setting, at most."""


def read_file(variable: str, path: str) -> str:
    """Return the text of a file that an environment variable names, without a BOM and the white space around it.

    Raises ConfigError if it cannot be read, is not UTF-8, or is too large to hold a setting.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{variable} names {path!r}, which cannot be read: {reason}") from error
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{variable} names {path!r}, which is too large: the file must hold the value alone")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{variable} names {path!r}, which is not UTF-8: write the value alone into it") from None
