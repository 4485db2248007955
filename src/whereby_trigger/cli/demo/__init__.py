"""The demo: real servers, scripted meetings sent to them, kills at the worst moment, and checks on the outcome."""


def run(store: str | None = None) -> int:
    """Run the demo on the terminal; return 0 if all checks passed, else 1.

    It uses new SQLite files, or the empty store at a URL. Raises StoreError if that cannot be used or is not empty.
    """
    import asyncio

    from whereby_trigger.cli.demo.report import show_next_command
    from whereby_trigger.cli.demo.scenario import play_crash, play_replicas
    from whereby_trigger.cli.demo.store import demo_store_at

    async def play() -> int:
        prepared = await demo_store_at(store)
        return max(await play_crash(prepared), await play_replicas(prepared))

    code = asyncio.run(play())
    if code == 0:
        show_next_command()
    return code
