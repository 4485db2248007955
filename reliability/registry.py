"""The rows, each with the dose that `make reliability` gives it and what must hold then."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from msgspec import Struct

from reliability.result import Result
from reliability.rows import (
    at_boundaries,
    at_room_boundaries,
    bodies,
    dead_replicas,
    disk_full,
    everybody_at_once,
    frozen_replicas,
    kills,
    many_rooms,
    mutations,
    orphaned_assistants,
    poison,
    power_loss,
    rolling_deploys,
    slowloris,
    suite,
    unsafe_settings,
)
from reliability.stores import STORES

SQLITE = ("sqlite",)
ANY = ("any",)
"""Rows that come before every store, so that they are run once."""


class Row(Struct, frozen=True):
    """Describe a row: the fault, what must hold under it, on which stores, and how it is run in a folder of its own."""

    fault: str
    must_hold: str
    run: Callable[[Path, str], Awaitable[Result]]
    stores: tuple[str, ...] = tuple(STORES)


ROWS: dict[int, Row] = {
    1: Row(
        "The receiver is killed with -9 at a random point, under load",
        "0 lost, 0 decided twice; at least 100,000 acknowledged",
        partial(kills.run, kills=1000, acknowledged_per_life=130, at_least=100_000),
    ),
    2: Row(
        "The receiver is killed before and after each insert, commit, answer, emit, decision, takeover and blame",
        "0 lost, 0 decided twice; parked is what three deaths were blamed on: stored as failed, with that reason",
        partial(at_boundaries.run, deaths=50),
    ),
    3: Row(
        "Power loss, told from a trace of the system calls",
        "every 200 after the sync of its webhook; after each cut 0 acknowledged missing and integrity_check ok",
        partial(power_loss.run, acknowledged=2000, cuts=200),
        SQLITE,
    ),
    4: Row("Unsafe configuration", "refused, with the reason", unsafe_settings.run, SQLITE),
    11: Row(
        "Three replicas, and each event reaches all of them at once",
        "1 row each; 1 assistant in each room",
        partial(everybody_at_once.run, events=10_000, rooms=200),
    ),
    12: Row(
        "A replica with 20 assistants is killed with -9",
        "all restarted within 2 s on SQLite; 0 overlaps",
        partial(dead_replicas.run, kills=200, assistants=20, bound=2.0),
    ),
    13: Row(
        "A replica is frozen past its lease: the supervisor alone, and with its children",
        "supervisor alone: 0 overlaps; all frozen: at most one tick of each",
        partial(frozen_replicas.run, freezes=100),
    ),
    14: Row(
        "The supervisor dies or freezes; its child, also behind sh and npm start, lives",
        "the guard has ended the whole group by the deadline",
        partial(orphaned_assistants.run, doses=100),
    ),
    16: Row(
        "Rolling deploys at 20 deliveries a second; drains with user code that blocks",
        "0 lost; hand-over within 2 s; the drain keeps its deadline",
        partial(rolling_deploys.run, deploys=50, blocking_deploys=5),
    ),
    17: Row(
        "Poison: assistants that raise, refuse, exit and hang",
        "capped backoff, parked, others unaffected",
        partial(poison.run, doses=1000),
    ),
    18: Row(
        "The disk is full",
        "503, never 200; recovers unaided",
        partial(disk_full.run, doses=100, on_a_small_disk=20),
        SQLITE,
    ),
    19: Row(
        "Slow sockets: a byte a second, or none",
        "good traffic p99 under 500 ms; the slow ones closed within 10 s",
        partial(slowloris.run, sockets=1000),
    ),
    20: Row(
        "Bodies: one byte below the limit, at it, above it, 100 MiB, in chunks without a length, of false lengths",
        "413 without buffering, RSS + less than 8 MiB, nothing refused is stored",
        bodies.run,
    ),
    21: Row(
        "Signatures: forged, stale, from the future, replayed, rotated, mutated",
        "0 bad accepted, 0 answers of 500",
        partial(suite.run, tests=("tests/webhook/test_signature.py",), dose={"mutations": 100_000}),
        ANY,
    ),
    22: Row(
        "The grammar of the signature's header",
        "accepted and refused as the grammar says",
        partial(suite.run, tests=("tests/webhook/test_header_grammar.py",), dose={}),
        ANY,
    ),
    23: Row(
        "JSON that is no webhook, or an odd one",
        "no 500; the verdict of the table",
        partial(suite.run, tests=("tests/webhook/test_json_verdicts.py",), dose={}),
        ANY,
    ),
    24: Row(
        "A state machine over webhooks, rooms and leases: deliver, duplicate, reorder, crash, expire, freeze, drain",
        "refines the model",
        partial(
            suite.run,
            tests=("tests/store/test_model.py",),
            dose={"runs": 2000, "steps": 50},
            env={"MODEL_EXAMPLES": "2000", "MODEL_STEPS": "50"},
        ),
        ANY,
    ),
    25: Row(
        "Mutations of our own code",
        "every one is caught by a test of the suite",
        mutations.run,
        SQLITE,
    ),
    26: Row(
        "A thousand rooms begin and end in one process that serves 200 at a time (a row of our own)",
        "no task, file descriptor or memory of them stays",
        partial(many_rooms.run, rooms=1000),
    ),
    27: Row(
        "A replica is killed before and after each claim, take, spawn and record of a room (row 2 for rooms)",
        "0 lost, 0 overlaps, every room served",
        partial(at_room_boundaries.run, deaths=50),
    ),
}
