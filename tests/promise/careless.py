"""A user's program with code that is slow and code that raises: `python -m tests.promise.careless`."""

import asyncio
import os
import threading

from whereby_trigger import RoomClientJoined, RoomClientLeft, Trigger, TriggerSuccess

SLOW = 6.0
"""Seconds; longer than Whereby waits for an answer. Source: Whereby docs, Failed delivery."""

trigger = Trigger(webhook_triggers={"room.client.knocked": lambda: True})


@trigger.when("room.client.joined")
async def slow(webhook: RoomClientJoined) -> bool:
    await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=SLOW)
    return True


@trigger.when("room.client.left")
def slow_and_sync(webhook: RoomClientLeft) -> bool:
    return not threading.Event().wait(SLOW)


@trigger.on("trigger_event_success")
def told(success: TriggerSuccess) -> None:
    # One write, since the log shares the pipe.
    os.write(1, f"told {success.trigger_webhook.id} {success.attempt}\n".encode())


@trigger.on("room.client.knocked")
def raises() -> None:
    raise LookupError("no such assistant")


@trigger.on("room.client.knocked")
async def rejects() -> None:
    await asyncio.sleep(0)
    raise ConnectionError("no network")


if __name__ == "__main__":
    trigger.start()
