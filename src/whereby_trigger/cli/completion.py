"""Completion in a shell: the types of webhooks, and the rooms and ids of the store.

The program is not imported, since it may do anything: the store is that of `--store`, the environment or this folder.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import click
from click.shell_completion import CompletionItem

from whereby_trigger.cli.stores import store_to_read
from whereby_trigger.config import resolve
from whereby_trigger.store import Query, Record
from whereby_trigger.webhook import WEBHOOK_TYPES

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

NEWEST = 500
"""Stored webhooks among which rooms and ids are looked for."""

WITHIN = 2.0
"""Seconds that a store has to answer: somebody waits at a prompt."""


def complete_type(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a type of webhook."""
    return [CompletionItem(type) for type in WEBHOOK_TYPES if type.startswith(incomplete)]


def complete_room(*, names: bool = False) -> Complete:
    """Return what completes a room's key from the store, or its name with `names`."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        keys = [record.room for record in _newest(context, Query(limit=NEWEST)) if record.room is not None]
        texts = ["/" + key.partition("/")[2] for key in keys] if names else keys
        return [CompletionItem(text) for text in dict.fromkeys(texts) if text.startswith(incomplete)]

    return complete


def complete_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a stored webhook, newest first; its type and state are the help."""
    found = _newest(context, Query(prefix=incomplete or None, limit=NEWEST))
    return [CompletionItem(record.id, help=f"{record.type} {record.state}") for record in found]


def _newest(context: click.Context, query: Query) -> list[Record]:
    async def find() -> list[Record]:
        async with asyncio.timeout(WITHIN), store_to_read(url) as store:
            return await store.find(query)

    # Whatever is wrong, a shell that completes has no place for it.
    with suppress(Exception):
        url = resolve({}, {"store": context.params.get("store")}).settings.store
        return asyncio.run(find())
    return []
