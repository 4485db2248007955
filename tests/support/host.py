"""A host app in its own server: uvicorn, in a thread, on a free port."""

import socket
import threading
from types import TracebackType
from typing import Any

import uvicorn

from tests.support.until import until


class Hosted:
    """Serve an ASGI app, with its lifespan, for a `with` block."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", **settings))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> "Hosted":
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started, "the host app did not start: its lifespan failed"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
