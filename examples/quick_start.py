"""The quick start's whole example in Python: one assistant in each room that somebody joins.

The original has one flag for all rooms; this has a set of rooms. The set ends with this process: the next process does
not know of an assistant that is still in a room.

    ASSISTANT="node assistant.mjs" whereby-trigger dev quick_start.py
"""

from assistant import CouldNotJoin, join

from whereby_trigger import TRIGGER_EVENT_SUCCESS, RoomClientJoined, Trigger, TriggerSuccess, is_human

rooms_with_assistant: set[str] = set()


def needs_assistant(webhook: RoomClientJoined) -> bool:
    return is_human(webhook) and webhook.data.room_name not in rooms_with_assistant


trigger = Trigger(webhook_triggers={"room.client.joined": needs_assistant}, port=3000)


@trigger.on(TRIGGER_EVENT_SUCCESS)
async def send_assistant(success: TriggerSuccess) -> None:
    room = success.trigger_webhook.data.room_name
    # Add the room before anything is awaited: the predicate sees the room's next webhook only after that.
    rooms_with_assistant.add(room)
    try:
        print("An assistant is on its way to", success.room_url)
        await join(success.room_url)
        print("The assistant has left", success.room_url)
    except CouldNotJoin as error:
        print(error)
    finally:
        rooms_with_assistant.discard(room)


if __name__ == "__main__":
    trigger.start()
