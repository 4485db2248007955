"""Start your own assistant in a room: as a separate program, because Whereby's Assistant class is for Node.js only.

ASSISTANT is its command line, such as `node assistant.mjs`. The program reads the room's URL from WHEREBY_ROOM_URL,
joins the room, and exits with 0 once it has left.
"""

import asyncio
import os
import shlex

OURS = ("WHEREBY_WEBHOOK_SECRET", "WHEREBY_TRIGGER_")
"""What the trigger's own variables begin with: the secret, the store with its password, the inspector's token."""


class CouldNotJoin(Exception):
    """Report that the assistant did not exit with 0."""


async def join(room_url: str) -> None:
    """Run an assistant in a room, and return when it has left. Raises CouldNotJoin if it fails."""
    command = shlex.split(os.environ.get("ASSISTANT", "node assistant.mjs"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = await asyncio.create_subprocess_exec(*command, env=environment | {"WHEREBY_ROOM_URL": room_url})
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if code != 0:
        raise CouldNotJoin(f"the assistant for {room_url} ended with {code}")
