"""`whereby-trigger db`: migrate the store, and delete old webhooks."""

import asyncio
import time

import click

from whereby_trigger.cli.arguments import (
    app_argument,
    settings_with_store,
    store_option,
    store_to_change,
    store_to_read,
)
from whereby_trigger.cli.output import (
    dry_run_option,
    is_agreed,
    local,
    note,
    progress,
    rewrite_option,
    show_lines,
    yes_option,
)
from whereby_trigger.store import remove_bodies
from whereby_trigger.store.factory import store_for


@click.group()
def db() -> None:
    """Maintain the store by hand; a running trigger does it anyway."""


@db.command("migrate")
@app_argument
@store_option
def migrate(app: str | None, store: str | None) -> None:
    """Create the store, or bring it to this program's schema."""
    opened = store_for(settings_with_store(app, store).store)
    applied = asyncio.run(opened.migrate())
    numbers = ", ".join(map(str, applied))
    result = f"applied migrations {numbers}" if applied else "nothing to do, the schema is up to date"
    show_lines(f"{opened.location}: {result}")


@db.command("prune")
@app_argument
@store_option
@click.option(
    "--older-than",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Delete webhooks received longer ago than this whose signature has expired. [default: retention]",
)
@rewrite_option
@dry_run_option
@yes_option
def prune(
    app: str | None, store: str | None, older_than: float | None, rewrite: bool, dry_run: bool, yes: bool
) -> None:
    """Delete old decided webhooks.

    It says how many, and asks. Pending webhooks are kept at any age.
    """
    settings = settings_with_store(app, store)
    # Nothing was received before 1970, and a very large age lies before the first date that Python can show.
    before = max(0.0, time.time() - (settings.retention if older_than is None else older_than))
    location = store_for(settings.store).location
    found = asyncio.run(_prunable(settings.store, before))
    if not is_agreed(f"delete {_received(found, before)} from {location}", yes=yes, dry_run=dry_run):
        return
    bodies = None if older_than is not None else settings.body_retention
    deleted, left = asyncio.run(_prune(settings.store, before, bodies, found, rewrite or None))
    show_lines(f"{location}: deleted {_received(deleted, before)}")
    if left:
        note(f"Warning: {left}")


def _received(count: int, before: float) -> str:
    return f"{count:,} {'webhook' if count == 1 else 'webhooks'} received before {local(before)}"


async def _prunable(url: str, before: float) -> int:
    async with store_to_read(url) as store:
        return await store.prunable(before)


async def _prune(url: str, before: float, bodies: float | None, found: int, rewrite: bool | None) -> tuple[int, str]:
    async with store_to_change(url) as store:
        with progress(found, "The same command deletes the others.") as advance:
            deleted = await store.prune(before, advance)
        if bodies is not None:
            await remove_bodies(store, time.time() - bodies)
        return deleted, await store.wipe(rewrite=rewrite)
