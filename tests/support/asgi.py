"""An ASGI app called as a server calls it, without one."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.support.http import Answer, signature

RawHeaders = Sequence[tuple[bytes, bytes]]


class Upload:
    """Send a body in chunks; after the last the request is complete, or hangs until `hang_up` is set."""

    def __init__(self, *chunks: bytes, complete: bool = True) -> None:
        self._chunks = list(chunks) or [b""]
        self._complete = complete
        self.hang_up = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if not self._chunks:
            await self.hang_up.wait()
            return {"type": "http.disconnect"}
        chunk = self._chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self._chunks) or not self._complete}


async def call(
    app: Any, upload: Upload, headers: RawHeaders = (), *, method: str = "POST", path: str = "/"
) -> Answer | None:
    """Make one request; return None if the app did not answer."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": iter(headers), "root_path": ""}
    await app(scope, upload.receive, send)
    if not sent:
        return None
    start, end = sent
    assert not end.get("more_body")
    names = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], names, end["body"])


async def post(app: Any, body: bytes) -> Answer:
    """Deliver a signed body."""
    name, value = signature(body)
    answer = await call(app, Upload(body), [(name.lower().encode(), value.encode())])
    assert answer is not None
    return answer
