"""The example of the Trigger reference in Python: print the room of every success.

As in the original, the flag is never set: every join fires, even an assistant's own. quick_start.py avoids that.

    whereby-trigger dev trigger_reference.py
"""

from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, TriggerSuccess

has_joined = False

trigger = Trigger(webhook_triggers={"room.client.joined": lambda: not has_joined}, port=4999)


@trigger.on(TRIGGER_EVENT_SUCCESS)
def say_where(success: TriggerSuccess) -> None:
    print("Fired for", success.room_url)


if __name__ == "__main__":
    trigger.start()
