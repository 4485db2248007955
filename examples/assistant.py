"""Where your own assistant starts: here as a program of its own, since Whereby's Assistant class is for Node.js only.

ASSISTANT is its command line, such as `node assistant.mjs`. The program finds the room's URL in WHEREBY_ROOM_URL, joins
it, and ends with 0 once it has left.
"""

import asyncio
import os
import shlex

OURS = ("WHEREBY_WEBHOOK_SECRET",)


class CouldNotJoin(Exception):
    """The assistant ended with something else than 0."""


async def join(room_url: str) -> None:
    """Run an assistant in a room, and return when it has left. Raises CouldNotJoin where it fails."""
    command = shlex.split(os.environ.get("ASSISTANT", "node assistant.mjs"))
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    process = await asyncio.create_subprocess_exec(*command, env=environment | {"WHEREBY_ROOM_URL": room_url})
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if code != 0:
        raise CouldNotJoin(f"the assistant for {room_url} ended with {code}")
