"""A user's program whose predicates keep no state, for every kind of decision: `python -m tests.promise.stateless`."""

from whereby_trigger import (
    RoomClientJoined,
    RoomClientKnocked,
    RoomClientLeft,
    RoomSessionStarted,
    Trigger,
    is_human,
)

trigger = Trigger(webhook_triggers={"room.client.joined": lambda webhook: is_human(webhook)})


@trigger.when("room.client.left")
async def last_one(webhook: RoomClientLeft) -> bool:
    return not webhook.data.num_clients


@trigger.when("room.client.knocked")
def named(webhook: RoomClientKnocked) -> bool:
    if webhook.data.display_name == "raises":
        raise LookupError(webhook.data.display_name)
    return bool(webhook.data.display_name)


@trigger.when("room.session.started")
def forgetful(webhook: RoomSessionStarted) -> bool:
    return None if "lobby" in webhook.data.room_name else True  # type: ignore[return-value]


@trigger.when("assistant.requested")
async def always() -> bool:
    return True


@trigger.on("room.client.joined")
def count(webhook: RoomClientJoined) -> None: ...


@trigger.on("recording.finished")
async def fetch() -> None: ...


@trigger.on("trigger_event_success")
def announce() -> None: ...


if __name__ == "__main__":
    trigger.start()
