"""The ceiling: what the server alone can do, with an app that reads the body and answers 200.

Run as `python -m bench.programs.ceiling`.
"""

import asyncio
import signal
import sys
from typing import Any

from whereby_trigger import process
from whereby_trigger.receive import bind
from whereby_trigger.receive.server import Server

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
BODY = {"type": "http.response.body", "body": b""}


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body", False):
        pass
    await send(START)
    await send(BODY)


async def serve() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server = Server(app, bind("127.0.0.1", 0))
    await server.open()
    print(f"http://127.0.0.1:{server.port}/", file=sys.stderr, flush=True)
    await stopping.wait()
    await server.close()


if __name__ == "__main__":
    process.run(serve())
