"""The calculation itself: the load of live rooms on the replicas and on the database, as tables for the page."""

import math
from collections.abc import Iterator
from pathlib import Path

from scripts.scaling import assumptions as assumed
from scripts.scaling.figures import ROOT, Figures
from whereby_trigger.clock import RENEWALS, margins
from whereby_trigger.config import OPTIONS
from whereby_trigger.store.postgres.store import POLL
from whereby_trigger.store.postgres.writer import WRITERS

PAGE = ROOT / "docs" / "scaling.md"
MARK = "<!-- {name}: made by `make scaling` -->\n"
END = "<!-- end -->\n"

LEASE_TTL = next(float(option.default) for option in OPTIONS if option.name == "lease_ttl")
CONNECTIONS = len(WRITERS) + 1
"""One for each kind of writing, and one to read."""

RANDOM_INDEXES = 2
PAGE_BYTES = 8192
"""An index with unordered entries logs a whole page at the first change of it after a checkpoint."""

DAY = 86_400
UNITS = ("bytes", "kB", "MB", "GB", "TB")
TTLS = (10, 30, 60, 180, 600)


def tables(figures: Figures) -> dict[str, str]:
    """Write each generated part of the page, by its name."""
    return {
        "calculation": _calculation(figures),
        "assumptions": _assumptions(),
        "measured": _measured(figures),
        "leases": _leases(),
    }


def write(figures: Figures, page: Path = PAGE) -> None:
    """Write the generated parts into the page, each between its marks."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables(figures).items():
        before, mark, rest = text.partition(MARK.format(name=name))
        _, end, after = rest.partition(END)
        text = before + mark + table + end + after
    page.write_text(text, encoding="utf-8")


def self_stop(ttl: float) -> tuple[float, float, float]:
    """Calculate the seconds in a lease's life: between renewals, until assistants must end, until they have ended.

    The latter two count from the moment at which the last good renewal was sent.
    """
    margin, notice = margins(ttl)
    return ttl / RENEWALS, ttl - margin - notice, ttl - margin


def _leases() -> str:
    rows: list[tuple[str, ...]] = []
    for ttl in TTLS:
        every, told, ended = self_stop(ttl)
        rows.append(tuple(f"{seconds:.3g} s" for seconds in (ttl, every, told - every, told, ended)))
    columns = (
        "`lease_ttl`",
        "renewed every",
        "an outage this long stops no assistant",
        "told to end after",
        "ended after, at the latest",
    )
    return _table(columns, rows)


def _calculation(figures: Figures) -> str:
    columns = ("live rooms", *(f"{live:,}" for live in assumed.LIVE_ROOMS))
    return _table(columns, list(_rows(figures)))


def _rows(figures: Figures) -> Iterator[tuple[str, ...]]:
    def row(title: str, *values: str) -> tuple[str, ...]:
        return (title, *values)

    lives = assumed.LIVE_ROOMS
    rates = [assumed.per_second(live) for live in lives]
    starts = [assumed.assistants_per_second(live) for live in lives]
    replicas = [assumed.replicas(live) for live in lives]
    looks = {look.live: look.milliseconds for look in figures.looks}
    days = [rate * DAY for rate in rates]
    yield row("webhooks per second, on average", *map(_number, rates))
    yield row(f"at a full hour ({assumed.PEAK} times as many)", *(_number(rate * assumed.PEAK) for rate in rates))
    yield row("assistants started per second", *map(_number, starts))
    yield row(f"replicas, {assumed.ROOMS_EACH} rooms each", *(f"{count:,}" for count in replicas))
    yield row(f"connections, {CONNECTIONS} each", *(f"{count * CONNECTIONS:,}" for count in replicas))
    yield row("renewals per second", *(_number(count * RENEWALS / LEASE_TTL) for count in replicas))
    yield row("looks per second", *(_number(count / POLL) for count in replicas))
    yield row(
        "cores of the database for the looks",
        *(_number(count / POLL * looks[live] / 1000) for live, count in zip(lives, replicas, strict=True)),
    )
    commits = [
        2 * rate + assumed.CHANGES_PER_ASSISTANT * started + count * RENEWALS / LEASE_TTL
        for rate, started, count in zip(rates, starts, replicas, strict=True)
    ]
    yield row("commits per second, at most", *map(_number, commits))
    yield row("webhooks per day", *map(_number, days))
    yield row("of them on disk, per day", *(_bytes(day * figures.webhook_disk) for day in days))
    disk = [
        (day * figures.webhook_disk + started * DAY * figures.assistant_disk) * assumed.RETENTION_DAYS
        for day, started in zip(days, starts, strict=True)
    ]
    yield row(f"on disk, {assumed.RETENTION_DAYS} days of all", *map(_bytes, disk))
    indexes = [day * figures.webhook_indexes * assumed.RETENTION_DAYS for day in days]
    yield row("indexes in that", *map(_bytes, indexes))
    logs = [_logged(figures, rate, started, at_most=False) for rate, started in zip(rates, starts, strict=True)]
    most = [_logged(figures, rate, started, at_most=True) for rate, started in zip(rates, starts, strict=True)]
    yield row("log (WAL) per second, at least", *map(_bytes, logs))
    yield row("log (WAL) per second, at most", *map(_bytes, most))


def _logged(figures: Figures, rate: float, started: float, *, at_most: bool) -> float:
    pages = RANDOM_INDEXES * PAGE_BYTES if at_most else 0
    return rate * (figures.webhook_log + pages) + started * figures.assistant_log


def _assumptions() -> str:
    return (
        f"- {assumed.PER_SESSION} webhooks in a session of {60 // assumed.SESSIONS_PER_HOUR} minutes, and one session "
        f"after the other: {assumed.PER_SESSION * assumed.SESSIONS_PER_HOUR} webhooks per room and hour.\n"
        f"- {assumed.PEAK} times as many at a full hour, when many sessions begin.\n"
        f"- An assistant in each session, and {assumed.ROOMS_EACH} of them on a replica (`max_rooms`), "
        f"at least {assumed.FEWEST_REPLICAS} replicas.\n"
        f"- A retention of {assumed.RETENTION_DAYS} days, a `lease_ttl` of {LEASE_TTL:g} s.\n"
    )


def _measured(figures: Figures) -> str:
    look = ", ".join(f"{each.milliseconds:.2g} ms with {each.live:,} live rooms" for each in figures.looks)
    return (
        f"- A webhook of 550 bytes, decided, takes {figures.webhook_disk:,.0f} bytes on disk: "
        f"{figures.webhook_table:,.0f} in the table and {figures.webhook_indexes:,.0f} in its indexes, with the space "
        f"that is free between two vacuums. To store and decide it writes {figures.webhook_log:,.0f} bytes of log, "
        f"and up to {RANDOM_INDEXES * PAGE_BYTES:,} more if each index entry is the first on its page since the last "
        "checkpoint.\n"
        f"- An assistant takes {figures.assistant_disk:,.0f} bytes on disk and {figures.assistant_log:,.0f} of log.\n"
        f"- A replica's look keeps a core of the database busy for {look}.\n"
        f"- Measured on {figures.date} with {figures.webhooks:,} webhooks, of which {figures.kept:,} were kept at a "
        f"time, and {figures.assistants:,} assistants, on PostgreSQL {figures.postgres}: "
        f"{'; '.join(figures.machine)}.\n"
    )


def _number(value: float) -> str:
    """Format a number with two significant digits, in words from a million on."""
    if value >= 1e6:
        return f"{_two_digits(value / 1e6)} million"
    return _two_digits(value)


def _bytes(value: float) -> str:
    thousands = 0
    while value >= 1000 and thousands < len(UNITS) - 1:
        value, thousands = value / 1000, thousands + 1
    return f"{_two_digits(value)} {UNITS[thousands]}"


def _two_digits(value: float) -> str:
    if value <= 0:
        return "0"
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 1)}\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)
