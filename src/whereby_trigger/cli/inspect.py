"""`whereby-trigger inspect`: serve the inspector over a store, beside the triggers that run on it."""

import asyncio
import logging
import signal
from collections.abc import Mapping
from typing import Any

import click

from whereby_trigger import logs
from whereby_trigger.cli.app import app_argument, default_app, load, locate
from whereby_trigger.cli.options import settings_options, store_option
from whereby_trigger.cli.stores import store_to_read
from whereby_trigger.config import check_inspector
from whereby_trigger.process import ENDING
from whereby_trigger.receive import bind
from whereby_trigger.trigger import Trigger

logger = logging.getLogger("whereby_trigger")

PORT = 8088


@click.command()
@app_argument
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port; 0 picks one.")
@settings_options("inspector_token", "inspector_actions", "inspector_reveal")
def inspect(app: str | None, store: str | None, host: str, port: int, settings: Mapping[str, Any]) -> None:
    """Serve the inspector over a store, beside running triggers.

    With APP, predicates can be asked again without effect. Beyond this machine it needs a token to log in with.
    """
    trigger = Trigger() if app is None and (store is not None or default_app() is None) else load(locate(app))
    trigger.override({"store": store} | dict(settings))
    check_inspector(trigger.resolve().settings, host)
    logs.configure()
    asyncio.run(_serve(trigger, host, port))


async def _serve(trigger: Trigger, host: str, port: int) -> None:
    # A store that is not there, or of another schema, is said here, and not on every page.
    async with store_to_read(trigger.resolve().settings.store):
        pass
    from whereby_trigger.receive.server import Server

    server = Server(trigger.inspector, bind(host, port))
    await server.open()
    logger.info("inspector at http://%s:%d/", f"[{host}]" if ":" in host else host, server.port)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ENDING:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
    try:
        await ended.wait()
    finally:
        await server.close(0)
        await trigger.inspector.close()
