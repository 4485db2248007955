"""The tables: what each is about, the dose that `make bench` gives it, and the targets it is held to."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from bench.outcome import Outcome
from bench.setting import Setting
from bench.tables import throughput


class Table(Struct, frozen=True):
    """Describe a table; `dose` is the class of its doses, whose defaults are what the page reports."""

    title: str
    about: str
    dose: type[Any]
    run: Callable[[Setting, Any], Awaitable[Outcome]]
    targets: tuple[str, ...] = ()


TABLES: dict[int, Table] = {
    1: Table(
        "Throughput per core",
        """\
wrk sends distinct, signed `room.client.joined` bodies of 550 bytes over 64 connections and 1,000 rooms, as fast as they
are answered, to one process on one core. The rounds are interleaved: each side has its turn in each round; the figures
are medians. A round of ours counts only when the store holds every webhook as fired, the listener was called for each,
and less than a second of work was left when the last was answered; that rest is included in the webhooks per second.
The peer is a minimal Express endpoint which parses the body, asks an async predicate and emits an event; it verifies
and stores nothing. The ceiling is our HTTP server with an app that reads the body and answers 200. A line in the log
for each delivery is on by default and off here, but for the row that says so.""",
        throughput.Dose,
        throughput.run,
        throughput.TARGETS,
    ),
}
