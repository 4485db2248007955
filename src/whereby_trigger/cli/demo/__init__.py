"""The demo: real servers, scripted meetings sent to them, kills at the worst moment, and checks on the outcome."""


def run(url: str | None = None) -> int:
    """Run the demo on the terminal; return 0 if all checks passed, else 1.

    It uses new SQLite files, or the empty store at a URL. Raises StoreError if that cannot be used or is not empty.
    """
    import asyncio

    import click

    from whereby_trigger.cli.demo.crash import CrashScenario
    from whereby_trigger.cli.demo.replicas import ReplicaScenario
    from whereby_trigger.cli.demo.scenario import empty_store_at, run_scenario

    async def both() -> int:
        store = None if url is None else await empty_store_at(url)
        return max(await run_scenario(CrashScenario, store), await run_scenario(ReplicaScenario, store))

    code = asyncio.run(both())
    if code == 0:
        click.echo("Try it with a trigger of your own, in app.py, and with simulated meetings:")
        click.echo("  whereby-trigger dev\n  whereby-trigger simulate   (in another terminal)")
    return code
