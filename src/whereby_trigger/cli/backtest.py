"""`whereby-trigger backtest`: ask a program's predicates about stored webhooks, and show what would be otherwise."""

import asyncio
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final, TextIO

import click

from whereby_trigger.cli.arguments import (
    LIMIT,
    app_argument,
    json_option,
    load,
    locate,
    room_option,
    store_option,
    store_to_read,
    time_range,
    until_option,
)
from whereby_trigger.cli.events import SHORT_ID, type_option
from whereby_trigger.cli.output import FAILED, local, note, show_objects, show_table
from whereby_trigger.decide import UserCode
from whereby_trigger.decide.backtest import Backtest, Scope, Summary
from whereby_trigger.decide.predicates import Judgement, did_you_mean
from whereby_trigger.errors import AppError
from whereby_trigger.store import PastWebhook, State
from whereby_trigger.text import utc
from whereby_trigger.trigger import Trigger
from whereby_trigger.webhook import WEBHOOK_TYPES, room_selected

HEADER = ("received", "id", "type", "room", "change")
WOULD: Final = {
    State.FIRED: "fire",
    State.SKIPPED: "skip",
    State.FAILED: "fail",
    State.HELD: "still be held",
    State.NOTIFIED: "only be notified",
    State.UNHANDLED: "not be handled",
}
"""What becomes of a webhook, by the state in which it would be."""


@click.command(short_help="Ask predicates about stored webhooks, without effect.")
@app_argument
@store_option
@click.option(
    "--since",
    metavar="TIME",
    default="7d",
    show_default=True,
    help="Only what came from this time on: 22:14, '2026-11-28 22:14', 2h (ago) or ISO 8601.",
)
@until_option
@room_option
@type_option
@click.option("--limit", type=click.IntRange(min=1), help=f"Differences to show. [default: {LIMIT}; with --json all]")
@click.option("--fail-on-difference", is_flag=True, help="Exit with 1 if anything would be decided otherwise.")
@json_option
def backtest(
    app: str | None,
    store: str | None,
    since: str,
    until: str | None,
    room: str | None,
    type: str | None,
    limit: int | None,
    fail_on_difference: bool,
    as_json: bool,
) -> None:
    """Ask the predicates of APP about stored webhooks, and show what they would decide otherwise.

    Each is asked in order, with who was in the room at that time, and nothing is written: no listener is called and no
    assistant starts. A trigger may run on the store meanwhile.
    """
    if type is not None and type not in WEBHOOK_TYPES:
        raise click.UsageError(f"Whereby sends no type {type!r}{did_you_mean(type, WEBHOOK_TYPES)}")
    start, end = time_range(since, until)
    scope = Scope(
        since=-math.inf if start is None else start,
        until=math.inf if end is None else end,
        room=None if room is None else room_selected(room),
        type=type,
    )
    place = locate(app)
    trigger = load(place)
    if not trigger.predicates.types():
        raise AppError(f"{place.name} has no predicate to ask: add @trigger.when(TYPE)")
    trigger.override({"store": store})
    limit = LIMIT if limit is None and not as_json else limit
    found = _Found(limit, sys.stdout if as_json else None)
    # What predicates print must not come between the lines that a program reads.
    with redirect_stdout(sys.stderr):
        summary = asyncio.run(_run(trigger, scope, found.tell))
    if as_json:
        show_objects([{"summary": _as_summary(summary)}])
    else:
        _show(summary, found.kept)
    if fail_on_difference and summary.different:
        raise click.exceptions.Exit(FAILED)


class _Found:
    """Print differences to `printing`, one JSON object a line, or keep them for a table if that is None.

    Only the first `limit`, if that is not None.
    """

    def __init__(self, limit: int | None, printing: TextIO | None) -> None:
        self._limit = math.inf if limit is None else limit
        self._printing = printing
        self._told = 0
        self.kept: list[tuple[PastWebhook, Judgement]] = []

    def tell(self, past: PastWebhook, judged: Judgement) -> None:
        """Take one more difference."""
        self._told += 1
        if self._told > self._limit:
            return
        if self._printing is None:
            self.kept.append((past, judged))
        else:
            click.echo(json.dumps(_as_object(past, judged)), file=self._printing)


async def _run(trigger: Trigger, scope: Scope, tell: Callable[[PastWebhook, Judgement], None]) -> Summary:
    settings = trigger.resolve().settings
    async with store_to_read(settings.store) as store:
        user_code = UserCode(settings.predicate_timeout)
        try:
            asking = Backtest(
                store,
                trigger.predicates,
                lambda type: bool(trigger.listeners(type)),
                user_code,
                scope,
                tell,
                max_age=settings.max_age,
                subdomain=settings.subdomain,
            )
            with _progress(await store.newest()) as show:
                return await asking.run(show)
        finally:
            await user_code.drain(0)
            user_code.close()


@contextmanager
def _progress(newest: int) -> Iterator[Callable[[int], None]]:
    """Show how far it is, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("asking", total=newest)
        yield lambda seq: progress.update(task, completed=seq)


def _show(summary: Summary, differences: Sequence[tuple[PastWebhook, Judgement]]) -> None:
    if differences:
        show_table([_as_row(past, judged, short=sys.stdout.isatty()) for past, judged in differences], HEADER)
        click.echo()
    if summary.changes:
        changes = [(f"{was} → {would_be}", f"{number:,}") for (was, would_be), number in summary.changes.most_common()]
        show_table(changes, ("change", "webhooks"))
        click.echo()
    if summary.asked:
        states = [state for state in State if summary.was[state] or summary.would_be[state]]
        rows = [(str(state), f"{summary.was[state]:,}", f"{summary.would_be[state]:,}") for state in states]
        show_table(rows, ("state", "was", "would be"))
        click.echo()
    if summary.not_asked:
        show_table([(f"{number:,}", why) for why, number in summary.not_asked.most_common()], ("not asked", "because"))
        click.echo()
    click.echo(f"{_webhooks(summary.asked)} asked, {summary.different:,} would be decided otherwise.")
    if len(differences) < summary.different:
        are = "is" if len(differences) == 1 else "are"
        some = f"The first {len(differences):,} of {summary.different:,} differences {are} shown"
        note(f"{some}: --limit {summary.different} shows all.")


def _webhooks(number: int) -> str:
    return f"{number:,} webhook{'' if number == 1 else 's'}"


def _as_row(past: PastWebhook, judged: Judgement, *, short: bool) -> tuple[str, ...]:
    received = local(past.received_at)
    return (
        received[len("2026-") : len("2026-01-01 00:00:00")] if short else received,
        past.id[:SHORT_ID] if short else past.id,
        past.type,
        past.room or "-",
        f"{past.state} → would {WOULD[judged.state]}: {judged.reason}",
    )


def _as_object(past: PastWebhook, judged: Judgement) -> dict[str, Any]:
    return {
        "id": past.id,
        "type": past.type,
        "room": past.room,
        "received_at": utc(past.received_at),
        "was": past.state,
        "would_be": judged.state,
        "was_reason": past.reason,
        "reason": judged.reason,
        # Without the text of an exception, which may hold a name: the output of a check before a deploy is kept.
        "error": judged.raised,
    }


def _as_summary(summary: Summary) -> dict[str, Any]:
    return {
        "asked": summary.asked,
        "different": summary.different,
        "was": {str(state): summary.was[state] for state in State if summary.was[state]},
        "would_be": {str(state): summary.would_be[state] for state in State if summary.would_be[state]},
        "changes": [
            {"was": was, "would_be": would_be, "webhooks": number}
            for (was, would_be), number in summary.changes.most_common()
        ],
        "not_asked": dict(summary.not_asked.most_common()),
    }
