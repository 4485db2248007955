"""The SDK's example app in Python: all of it in main(), its settings in the environment.

The assistant's key goes to the program that ASSISTANT names, which greets the room; the port, 3000 there, is PORT here.
Start it with `python example_app.py`: the command line needs a trigger outside of any function.
"""

import os
import sys

from assistant import CouldNotJoin, join

from whereby_trigger import TRIGGER_EVENT_SUCCESS, RoomClientJoined, Trigger, TriggerSuccess, is_human


def main() -> None:
    if not os.environ.get("ASSISTANT_KEY"):
        sys.exit("ASSISTANT_KEY is not set: create an assistant in Whereby's dashboard, and copy its key")
    occupied: set[str] = set()

    def wanted(webhook: RoomClientJoined) -> bool:
        return is_human(webhook) and webhook.data.room_name not in occupied

    trigger = Trigger(webhook_triggers={"room.client.joined": wanted})

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def send_assistant(success: TriggerSuccess) -> None:
        room = success.trigger_webhook.data.room_name
        occupied.add(room)
        try:
            await join(success.room_url)
            print("The assistant has left", success.room_url)
        except CouldNotJoin as error:
            print(error)
        finally:
            occupied.discard(room)

    trigger.start()


if __name__ == "__main__":
    main()
