"""The demo: real servers, scripted meetings sent to them, kills in the worst moment, and the proof that all held."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whereby_trigger.cli.demo.venue import Database


def run(store: str | None = None, database: "Database | None" = None) -> int:
    """Play the demo on the terminal; return 0 if everything came out as it must, else 1.

    It is played on files of its own, or on the empty store at a URL, whose database, if it is given, it kills and
    starts again in mid-meeting. Raises StoreError where the store cannot be used, or is not empty.
    """
    import asyncio

    from whereby_trigger.cli.demo.play import play
    from whereby_trigger.cli.demo.venue import venue_at

    async def played() -> int:
        return await play(await venue_at(store, database))

    return asyncio.run(played())
