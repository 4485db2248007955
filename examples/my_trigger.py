"""The trigger that test_my_trigger.py tests: an assistant for each visit that a person joins."""

from whereby_trigger import TRIGGER_EVENT_SUCCESS, RoomClientJoined, Trigger, TriggerSuccess, is_human

trigger = Trigger()


@trigger.when("room.client.joined")
def a_visitor(webhook: RoomClientJoined) -> bool:
    return is_human(webhook) and webhook.data.room_name.startswith("/visit-")


@trigger.on(TRIGGER_EVENT_SUCCESS)
def announce(success: TriggerSuccess) -> None:
    print("an assistant should join", success.room_url)


if __name__ == "__main__":
    trigger.start()
