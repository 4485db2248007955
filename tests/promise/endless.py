"""A user's program whose predicate for leaves never returns and whose listener for joins never ends."""

import asyncio
import threading

from whereby_trigger import Trigger

trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})


@trigger.when("room.client.left")
def hang() -> bool:
    print("hanging", flush=True)
    return threading.Event().wait()


@trigger.on("trigger_event_success")
async def assist() -> None:
    print("assisting", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("leaving", flush=True)


if __name__ == "__main__":
    trigger.start()
