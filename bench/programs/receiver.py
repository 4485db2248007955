"""The program under test: a trigger as a user would write it, whose listener counts calls or records their times.

Run as `python -m bench.programs.receiver`.
"""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from bench.programs import SECRET, Notebook
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Presence, RoomClientJoined, Trigger, TriggerSuccess, is_human, logs

TOLERANCE = 3600.0
"""Seconds: requests are signed before a round, which may outlast the usual five minutes on a slow machine."""

DELIVERIES = logging.getLogger("whereby_trigger.deliveries")


def write_asynchronously(trigger: Trigger, note: Callable[[str], None]) -> None:
    """Register a predicate and a listener that are coroutines and so run on the event loop."""

    @trigger.when("room.client.joined")
    async def people(webhook: RoomClientJoined) -> bool:
        return is_human(webhook)

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def announce(success: TriggerSuccess) -> None:
        note(success.trigger_webhook.id)


def ask_who_is_there(trigger: Trigger, note: Callable[[str], None]) -> None:
    """Register a coroutine predicate that asks who is in the room, and a listener."""

    @trigger.when("room.client.joined")
    async def people(webhook: RoomClientJoined, presence: Presence) -> bool:
        return is_human(webhook) and presence.humans is not None

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def announce(success: TriggerSuccess) -> None:
        note(success.trigger_webhook.id)


def write_synchronously(trigger: Trigger, note: Callable[[str], None]) -> None:
    """Register a predicate and a listener that are plain functions and so run in a thread."""
    trigger.when("room.client.joined")(lambda webhook: is_human(webhook))

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    def announce(success: TriggerSuccess) -> None:
        note(success.trigger_webhook.id)


FORMS: dict[str, Callable[[Trigger, Callable[[str], None]], None]] = {
    "async": write_asynchronously,
    "sync": write_synchronously,
    "presence": ask_who_is_there,
}


class AddressHandler(logging.StreamHandler[TextIO]):
    """Write the line with the address, then remove itself: a handler that stayed would see each delivery."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "whereby_trigger":
            super().emit(record)
            logging.getLogger(record.name).removeHandler(self)


def log_to(path: Path) -> None:
    """Send the whole log to a file, as a service does, and only the line with the address to standard error."""
    logs.configure(stream=path.open("w", encoding="utf-8"))
    logging.getLogger("whereby_trigger").addHandler(AddressHandler())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.programs.receiver")
    parser.add_argument("--store", required=True)
    parser.add_argument("--notes", required=True, type=Path)
    parser.add_argument("--form", choices=FORMS, default="async")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    if options.quiet:
        DELIVERIES.setLevel(logging.ERROR)
    else:
        log_to(options.notes.with_name("log"))
    notebook = Notebook(options.notes, times=options.times)
    trigger = Trigger(port=0, host="127.0.0.1", secret=SECRET, tolerance=TOLERANCE, store=options.store)
    FORMS[options.form](trigger, notebook.note)
    trigger.start()
    notebook.close()


if __name__ == "__main__":
    main()
