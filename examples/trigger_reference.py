"""Twin of the example in the Trigger reference: say which room every success is for.

As there, the flag is never set, so that every join fires, an assistant's own too; quick_start.py shows the cure.

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
