"""The trigger of the first scenario: a program as you would write one; its settings come from the environment."""

import time
from pathlib import Path

from whereby_trigger import (
    TRIGGER_EVENT_SUCCESS,
    RoomClientJoined,
    RoomClientLeft,
    RoomSessionStarted,
    Trigger,
    TriggerSuccess,
    is_human,
)

CALENDAR, NOTEBOOK = Path("calendar.txt"), Path("notebook.txt")

trigger = Trigger(webhook_triggers={"assistant.requested": lambda _: True})


@trigger.when("room.client.joined")
def first_person(webhook: RoomClientJoined) -> bool:
    return is_human(webhook) and webhook.data.humans == 1


@trigger.when("room.session.started")
def in_calendar(webhook: RoomSessionStarted) -> bool:
    """Look the room up in a calendar, which does not answer until its file is there."""
    while not CALENDAR.exists():
        time.sleep(0.02)
    return webhook.data.room_name in CALENDAR.read_text().split()


@trigger.on(TRIGGER_EVENT_SUCCESS)
def send_assistant(success: TriggerSuccess) -> None:
    write(success.trigger_webhook.id, success.attempt)


@trigger.on("room.client.left")
def say_goodbye(webhook: RoomClientLeft) -> None:
    write(webhook.id, 1)


def write(webhook_id: str, attempt: int) -> None:
    with NOTEBOOK.open("a") as notebook:
        notebook.write(f'["{webhook_id}", {attempt}]\n')


if __name__ == "__main__":
    trigger.start()
