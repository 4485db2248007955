"""The demo: real servers, scripted meetings sent to them, kills at the worst moment, and checks on the outcome."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whereby_trigger.cli.demo.server import KillableDatabase


def run(store: str | None = None, database: "KillableDatabase | None" = None) -> int:
    """Run the demo on the terminal; return 0 if all checks passed, else 1.

    It uses new SQLite files, or the empty store at a URL. It kills and restarts that store's `database` in mid-meeting
    if one is given. Raises StoreError if the store cannot be used or is not empty.
    """
    import asyncio

    from whereby_trigger.cli.demo.scenario import run_scenarios
    from whereby_trigger.cli.demo.server import demo_store_at

    async def all_scenarios() -> int:
        return await run_scenarios(await demo_store_at(store, database))

    return asyncio.run(all_scenarios())
