"""`whereby-trigger refusals`: which deliveries were not let in, by minute and reason."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from whereby_trigger.cli.arguments import (
    LIMIT,
    app_argument,
    json_option,
    settings_with_store,
    store_option,
    store_to_read,
)
from whereby_trigger.cli.output import local, note, show_objects, show_table
from whereby_trigger.deliveries import Delivery, hint_for
from whereby_trigger.store import CLOSED, RefusalCount
from whereby_trigger.text import utc

HEADER = ("minute", "answer", "reason", "refused", "replicas")
SINCE = "24h"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
AGO = re.compile(r"([0-9]{1,9})([smhd])")


def read_moment(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Read `2h` (so long ago) or ISO 8601 (local time if it names no zone), as seconds since the epoch."""
    ago = AGO.fullmatch(value)
    if ago is not None:
        return time.time() - int(ago[1]) * UNITS[ago[2]]
    try:
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError, OSError):
        example = f"write how long ago, e.g. 30m, 2h or 7d, or a time, e.g. 2026-11-28T22:14, not {value!r}"
        raise click.BadParameter(example) from None


@click.command(short_help="List which deliveries were refused, by minute and reason.")
@app_argument
@store_option
@click.option(
    "--since", callback=read_moment, default=SINCE, show_default=True, metavar="TIME", help="From when: 2h, 7d."
)
@click.option("--until", callback=read_moment, default="0s", metavar="TIME", help="Until when. [default: now]")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="How many, newest first.")
@json_option
def refusals(app: str | None, store: str | None, since: float, until: float, limit: int, as_json: bool) -> None:
    """List which deliveries were refused, by minute and reason, newest first.

    A running trigger adds what it refused every 10 s. With --json there is a line for each replica.
    """
    counts = asyncio.run(_read(settings_with_store(app, store).store, since, until))
    if as_json:
        show_objects(map(_as_object, counts[::-1][:limit]))
    elif counts:
        show_table(_as_rows(counts)[:limit], HEADER)
        _hint(counts)
    if not counts:
        note("No delivery was refused in that time.")


async def _read(url: str, since: float, until: float) -> list[RefusalCount]:
    async with store_to_read(url) as store:
        return await store.refusals(since, until)


def _as_rows(counts: Sequence[RefusalCount]) -> list[tuple[str, ...]]:
    """Return a row for each minute and reason, newest first, with what all replicas refused and how many did."""
    refused: Counter[tuple[int, int, str]] = Counter()
    replicas: Counter[tuple[int, int, str]] = Counter()
    for each in counts:
        refused[each.minute, each.status, each.reason] += each.count
        replicas[each.minute, each.status, each.reason] += 1
    return [
        (local(minute), _answer(status), reason, str(count), str(replicas[minute, status, reason]))
        for (minute, status, reason), count in reversed(refused.items())
    ]


def _as_object(each: RefusalCount) -> dict[str, Any]:
    return {
        "minute": utc(each.minute),
        "answer": each.status or None,
        "reason": each.reason,
        "refused": each.count,
        "replica": each.replica,
    }


def _answer(status: int) -> str:
    return "closed" if status == CLOSED else str(status)


def _hint(counts: Sequence[RefusalCount]) -> None:
    for status, reason in dict.fromkeys((each.status, each.reason) for each in counts):
        if (hint := hint_for(Delivery(status, reason))) is not None:
            note(f"{reason}: {hint}")
