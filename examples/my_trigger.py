"""The trigger that test_my_trigger.py tests: an assistant for each visit that a person joins."""

from whereby_trigger import RoomClientJoined, Trigger, is_human

trigger = Trigger()


@trigger.when("room.client.joined")
def a_visitor(webhook: RoomClientJoined) -> bool:
    return is_human(webhook) and webhook.data.room_name.startswith("/visit-")


if __name__ == "__main__":
    trigger.start()
