"""`whereby-trigger refusals`: which deliveries were not let in, by minute and reason."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from whereby_trigger.cli.arguments import (
    LIMIT,
    app_argument,
    json_option,
    settings_with_store,
    store_option,
    store_to_read,
    time_range,
    until_option,
)
from whereby_trigger.cli.output import local, note, show_objects, show_table
from whereby_trigger.deliveries import Delivery, hint_for
from whereby_trigger.store import CLOSED, RefusalCount
from whereby_trigger.text import utc

HEADER = ("minute", "answer", "reason", "refused", "replicas")


@click.command(short_help="List which deliveries were refused, by minute and reason.")
@app_argument
@store_option
@click.option(
    "--since",
    metavar="TIME",
    default="24h",
    show_default=True,
    help="Only from this time on: 22:14, '2026-11-28 22:14', 2h (ago) or ISO 8601.",
)
@until_option
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="How many, newest first.")
@json_option
def refusals(app: str | None, store: str | None, since: str, until: str | None, limit: int, as_json: bool) -> None:
    """List which deliveries were refused, by minute and reason, newest first.

    A running trigger adds what it refused every 10 s. With --json there is a line for each replica.
    """
    start, end = time_range(since, until)
    counts = asyncio.run(
        _read(settings_with_store(app, store).store, start or 0.0, time.time() if end is None else end)
    )
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
