"""`whereby-trigger db`: migrate the store, and delete old webhooks."""

import asyncio
import time

import click

from whereby_trigger.cli.app import app_argument
from whereby_trigger.cli.options import store_option
from whereby_trigger.cli.output import local, show_lines
from whereby_trigger.cli.stores import settings_with_store, store_to_change
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
def prune(app: str | None, store: str | None, older_than: float | None) -> None:
    """Delete old decided webhooks.

    Pending webhooks are kept at any age.
    """
    settings = settings_with_store(app, store)
    # Nothing was received before 1970, and a very large age lies before the first date that Python can show.
    before = max(0.0, time.time() - (settings.retention if older_than is None else older_than))
    deleted = asyncio.run(_prune(settings.store, before))
    webhooks = "webhook" if deleted == 1 else "webhooks"
    show_lines(f"{store_for(settings.store).location}: deleted {deleted} {webhooks} received before {local(before)}")


async def _prune(url: str, before: float) -> int:
    async with store_to_change(url) as store:
        return await store.prune(before)
