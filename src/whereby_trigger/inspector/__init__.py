"""The inspector: a page, and its JSON, that shows what a trigger does. Starlette and Jinja2 are loaded late."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from whereby_trigger.config import Settings
from whereby_trigger.decide import Predicates
from whereby_trigger.metrics import MetricsApp
from whereby_trigger.replica import Replica
from whereby_trigger.store import Store

if TYPE_CHECKING:
    from whereby_trigger.inspector.app import Site

__all__ = ["Access", "InspectedProgram", "Inspector"]


WEBSOCKET_REFUSED: Final = {"type": "websocket.close", "code": 1000}


class Access(StrEnum):
    """Name who is let in: programs of this machine, those with the token, or those that the host app lets through."""

    LOCAL = "local"
    TOKEN = "token"  # noqa: S105
    HOST = "host"


class InspectedProgram(Struct, frozen=True):
    """Hold what the inspector shows and acts on: its settings, its store, its predicates, its replica if it runs,
    and its metrics.

    `to_change` opens a store to change it, or yields the running trigger's.
    """

    settings: Callable[[], Settings]
    to_change: Callable[[], AbstractAsyncContextManager[Store]]
    predicates: Predicates
    replica: Callable[[], Replica | None]
    metrics: MetricsApp


class Inspector:
    """Serve the pages of the inspector, under any path.

    It lets in programs of this machine only or, with the setting `inspector_token`, those who log in with it.
    `behind_login()` leaves that to the app that it is mounted in.
    """

    def __init__(self, program: InspectedProgram, access: Access | None = None) -> None:
        self._program = program
        self._access = access
        self._site: Site | None = None

    def behind_login(self) -> "Inspector":
        """Return an inspector that lets in everybody: the host app lets through only those who may see it.

        Every request must pass a check of the app's own. It still refuses what a page of another site sends.
        """
        return Inspector(self._program, Access.HOST)

    async def __call__(self, scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "http":
            await self._open()(scope, receive, send)
        elif scope["type"] == "websocket":
            await send(WEBSOCKET_REFUSED)
        else:
            await self._lifespan(receive, send)

    async def close(self) -> None:
        """Close the store that pages have read; the next page opens it again."""
        if self._site is not None:
            await self._site.close()

    def _open(self) -> "Site":
        if self._site is None:
            # Starlette and Jinja2 take longer to import than the rest of the package.
            from whereby_trigger.inspector.app import Site

            settings = self._program.settings()
            access = self._access or (Access.LOCAL if settings.inspector_token is None else Access.TOKEN)
            self._site = Site(self._program, access)
        return self._site

    async def _lifespan(self, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await asyncio.shield(self.close())
                await send({"type": "lifespan.shutdown.complete"})
                return
