"""Names of hosts, looked up in a way that can be left: a resolver that does not answer holds nobody up."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress


async def look_up(hosts: Sequence[str]) -> None:
    """Wait until the name of one of these hosts is found; there is nothing to wait for where there are none.

    An event loop waits at its end for what it looks up itself, and complains of what nobody waits for any more.
    Raises OSError where none is known, UnicodeError where none can be a name.
    """
    if not hosts:
        return
    loop = asyncio.get_running_loop()
    found: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(None)
        else:
            found.set_exception(error)

    def look() -> None:
        error = _error_of(hosts)
        # The loop may have ended meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=look, name="whereby-trigger look-up", daemon=True).start()
    await found


def _error_of(hosts: Sequence[str]) -> Exception | None:
    """Find the first host that is known; give the last error where none is."""
    unknown: Exception | None = None
    for host in hosts:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            unknown = error
        else:
            return None
    return unknown
