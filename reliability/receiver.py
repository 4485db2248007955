"""The program under test: a trigger as a user would write it that appends each success to a file, or runs assistants.

Run as `python -m reliability.receiver`, so it can be killed without its sender. Its faults (a death at a boundary, a
mutation) are added here; the package does not know of them.
"""

import argparse
import logging
import os
import signal
import time
from pathlib import Path

from reliability import boundaries, conditions
from reliability.assistants import FORMS, HANG
from whereby_trigger import (
    TRIGGER_EVENT_SUCCESS,
    RoomClientJoined,
    RoomSessionStarted,
    Trigger,
    TriggerSuccess,
    is_human,
    replica,
)
from whereby_trigger.assist import runners
from whereby_trigger.store.sqlite.connection import path_of

SECRET = "the secret of the reliability harness"

POISON = "poison"
"""A `room.client.joined` with this external id ends the process that asks the predicate about it."""

BLOCK = signal.SIGUSR1
"""The signal that blocks the event loop forever."""


def build(options: argparse.Namespace) -> Trigger:
    """Build the trigger, which appends successes to `emissions` and runs assistants that tick in `ticks`, if given.

    `delay` is how many seconds the predicate for `assistant.requested` takes. With `hold`, a knock is held for that
    many seconds, and then fires.
    """
    trigger = Trigger(
        port=options.port,
        host="127.0.0.1",
        secret=SECRET,
        store=options.store,
        spill=options.spill,
        lease_ttl=options.lease_ttl,
        max_rooms=options.max_rooms,
        stop_grace=options.stop_grace,
        drain_timeout=options.drain_timeout,
    )

    @trigger.when("room.client.joined")
    def people(webhook: RoomClientJoined) -> bool:
        if webhook.data.external_id == POISON:
            os._exit(1)
        if options.short_of and "deciding" in webhook.data.room_name:
            conditions.need(options.short_of)
        return is_human(webhook)

    @trigger.when("room.session.started")
    async def visits(webhook: RoomSessionStarted) -> bool:
        return webhook.data.room_name.startswith("/visit-")

    @trigger.when("assistant.requested")
    def always() -> bool:
        time.sleep(options.delay)
        return True

    if options.hold is not None:
        trigger.when("room.client.knocked", hold=options.hold)(lambda: True)

    @trigger.on("room.client.left")
    @trigger.on("transcription.finished")
    def hear() -> None:
        pass

    if options.emissions is not None:
        note_successes(trigger, options.emissions, options.life)
    if options.ticks is not None:
        FORMS[options.assistant](trigger, options.ticks)
    return trigger


def note_successes(trigger: Trigger, emissions: str, life: int) -> None:
    """Append each success to a file in one write: life, id, attempt and time."""
    notebook = os.open(emissions, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    def note(success: TriggerSuccess) -> None:
        webhook = success.trigger_webhook
        os.write(notebook, f"{life} {webhook.id} {success.attempt} {time.time():.6f}\n".encode())


def copy_store(store: Path, done: Path) -> None:
    """Read the store's files as a careless backup does, which drops SQLite's locks, then create the file `done`."""
    for name in (store, store.with_name(f"{store.name}-wal"), store.with_name(f"{store.name}-shm")):
        name.read_bytes()
    done.touch()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reliability.receiver")
    parser.add_argument("--store", required=True)
    parser.add_argument("--emissions")
    parser.add_argument("--life", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--hold", type=float, help="fire for a knock too, after so many seconds")
    parser.add_argument("--lease-ttl", type=float, default=30.0)
    parser.add_argument("--drain-timeout", type=float, default=3600.0)
    parser.add_argument("--drain-margin", type=float, default=replica.DRAIN_MARGIN)
    parser.add_argument("--stop-grace", type=float)
    parser.add_argument("--max-rooms", type=int)
    parser.add_argument("--backoff", type=float, nargs=len(runners.BACKOFF), default=runners.BACKOFF)
    parser.add_argument("--spill")
    parser.add_argument("--ticks")
    parser.add_argument("--assistant", choices=FORMS, default="process")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", action="store_true", help="log each delivery too")
    parser.add_argument("--die", choices=(*boundaries.BOUNDARIES, boundaries.BEFORE_AGAIN, *boundaries.ROOM_BOUNDARIES))
    parser.add_argument("--passing", type=int, default=1)
    parser.add_argument("--unsafe", choices=conditions.UNSAFE)
    parser.add_argument("--short-of", choices=conditions.RESOURCES)
    parser.add_argument("--copies")
    options = parser.parse_args()
    conditions.bear_skew()
    if not options.log:
        logging.getLogger("whereby_trigger.deliveries").setLevel(logging.ERROR)
    runners.BACKOFF = tuple(options.backoff)
    replica.DRAIN_MARGIN = options.drain_margin
    signal.signal(BLOCK, lambda number, frame: time.sleep(HANG))
    if os.environ.get(conditions.MUTANT):
        # Import this late: it imports both stores and the driver, hundreds of receivers start, and few have a mutation.
        from reliability import mutants

        mutants.apply_from_environment()
    if options.unsafe:
        conditions.UNSAFE[options.unsafe]()
    trigger = build(options)
    if options.copies:
        signal.signal(signal.SIGUSR1, lambda *_: copy_store(path_of(options.store), Path(options.copies)))
    if options.short_of:
        conditions.bear_shortage(options.short_of)
    if options.die:
        boundaries.die_at(options.die, options.passing, options.store)
    trigger.start()


if __name__ == "__main__":
    main()
