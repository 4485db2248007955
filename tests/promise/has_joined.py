"""The Node quick start's flag, ported: one module-level variable, set by the listener. Serves one room a process."""

from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, TriggerSuccess

has_joined = False

trigger = Trigger(webhook_triggers={"room.client.joined": lambda: not has_joined})


@trigger.on(TRIGGER_EVENT_SUCCESS)
def join(success: TriggerSuccess) -> None:
    global has_joined
    has_joined = True


if __name__ == "__main__":
    trigger.start()
