"""A delivery of the demo: signed and posted as Whereby does it."""

import asyncio
import http.client
import time

from whereby_trigger.webhook import SIGNATURE_HEADER, sign

ANSWER_WITHIN = 5.0
NO_ANSWER = 0


async def post(port: int, body: bytes, secret: str) -> int:
    """Post a body to this machine, signed now; return the answer, NO_ANSWER where none came in time."""
    return await asyncio.to_thread(_post, port, body, secret)


def _post(port: int, body: bytes, secret: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN)
    headers = {"Content-Type": "application/json", SIGNATURE_HEADER: sign(secret, body, int(time.time()))}
    try:
        connection.request("POST", "/", body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return NO_ANSWER
    finally:
        connection.close()
