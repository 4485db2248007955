"""The store's upkeep: its schema, and what is forgotten."""

import asyncio
import time

import click

from whereby_trigger.cli.app import app_argument
from whereby_trigger.cli.events import store_option
from whereby_trigger.cli.output import show_lines
from whereby_trigger.cli.records import local
from whereby_trigger.cli.stores import changed, settings_with_store
from whereby_trigger.store.factory import store_for


@click.group()
def db() -> None:
    """Keep the store in order; a running trigger does it by itself."""


@db.command("migrate")
@app_argument
@store_option
def migrate(app: str | None, store: str | None) -> None:
    """Create the store where there is none, and bring it to this program's schema."""
    opened = store_for(settings_with_store(app, store).store)
    applied = asyncio.run(opened.migrate())
    numbers = ", ".join(map(str, applied))
    did = f"applied migrations {numbers}" if applied else "nothing to do, its schema is up to date"
    show_lines(f"{opened.location}: {did}")


@db.command("prune")
@app_argument
@store_option
@click.option(
    "--older-than",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Forget what was received longer ago than this, but no id whose signature is still good. [default: retention]",
)
def prune(app: str | None, store: str | None, older_than: float | None) -> None:
    """Forget decided webhooks that are old; pending ones are kept, whatever their age."""
    settings = settings_with_store(app, store)
    # Nothing was received before 1970, and no calendar goes back as far as an age may.
    before = max(0.0, time.time() - (settings.retention if older_than is None else older_than))
    forgotten = asyncio.run(_prune(settings.store, before))
    webhooks = "webhook" if forgotten == 1 else "webhooks"
    show_lines(f"{store_for(settings.store).location}: forgot {forgotten} {webhooks} received before {local(before)}")


async def _prune(url: str, before: float) -> int:
    async with changed(url) as store:
        return await store.prune(before)
