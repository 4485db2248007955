"""The Trigger example in the README of Whereby's Assistant SDK, in Python: join, and give up if that fails.

ASSISTANT="node assistant.mjs" whereby-trigger dev sdk_readme.py
"""

from assistant import CouldNotJoin, join

from whereby_trigger import TRIGGER_EVENT_SUCCESS, RoomClientJoined, Trigger, TriggerSuccess

joined: set[str] = set()


def first_client(webhook: RoomClientJoined) -> bool:
    return webhook.data.room_name not in joined


trigger = Trigger(webhook_triggers={"room.client.joined": first_client}, port=3000)


async def start_assistant(success: TriggerSuccess) -> None:
    room = success.trigger_webhook.data.room_name
    joined.add(room)
    try:
        await join(success.room_url)
    except CouldNotJoin as error:
        print("Gave up:", error)
    finally:
        joined.discard(room)


trigger.on(TRIGGER_EVENT_SUCCESS, start_assistant)

if __name__ == "__main__":
    trigger.start()
