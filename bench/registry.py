"""The tables: what each is about, its dose for `make bench`, and its targets."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from bench.outcome import Outcome
from bench.sides import Setting
from bench.tables import assistants, bursts, growth, latency, replicas, throughput


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
are medians, and a ratio is the median of the rounds' own, since what slows a machine for minutes slows both sides of a
round. A round of ours counts only when the store holds every webhook as fired, the listener was called for each, and
less than a second of work was left when the last was answered; that rest is included in the webhooks per second.
The first rows are our default configuration, with a line in the log for each delivery. Express is a minimal endpoint,
which parses the body, asks an async predicate and emits an event; it verifies and stores nothing. The careful peer
makes our promises with Express and better-sqlite3: it verifies the signature on the raw body, commits each webhook with
a sync before its answer, deduplicates by id, asks, emits, and records the decision. The ceiling is our HTTP server with
an app that reads the body and answers 200. Latencies are wrk's, which has a slow answer count also for the requests
that it held up.""",
        throughput.Dose,
        throughput.run,
        throughput.TARGETS,
    ),
    2: Table(
        "Latency",
        """\
Deliveries at an even pace, far below what any side can take, by a sender that keeps its pace whatever the answers take.
A delivery's time runs from the moment before it is written to the socket; the listener notes the time when it is
called, by the same clock. The peer calls its listener before it answers, ours answers first: what is answered is on
disk, and is decided even if the process ends.""",
        latency.Dose,
        latency.run,
        latency.TARGETS,
    ),
    3: Table(
        "Load and bursts",
        """\
A load that lasts, by the same sender, a tenth of it duplicates of what was delivered shortly before. After it bursts:
everything is written at once, over connections that are open already. All are answered when the last 200 has come, all
are decided when nothing is pending in the store.""",
        bursts.Dose,
        bursts.run,
        bursts.TARGETS,
    ),
    4: Table(
        "Growth",
        """\
The load of table 1, on stores that hold decided webhooks already, put there by SQL: ids in no order, 550 bytes each,
spread over 1,000 rooms and six days. A start counts from before Python is started, on a store in which the newest
webhooks were left pending by a replica that was stopped. Memory is what the process has in RAM: idle is after its first
hundred deliveries; after a burst, and after a load, it has five seconds to give back what it can.""",
        growth.Dose,
        growth.run,
        growth.TARGETS,
    ),
    5: Table(
        "Assistants",
        """\
Each webhook is a person who joins another room, so that each gets an assistant: a coroutine, or a process, a Python
program that notes the time in its first line. The time runs from the call of a listener for the success
to that line, and so holds the commits of the decision and of the claim, and for a process the start of its guard and of
Python. A lease is renewed six times in the time it lasts, by one statement however many rooms; beside that, a replica
with rooms looks at the store each second for what concerns them.""",
        assistants.Dose,
        assistants.run,
    ),
    6: Table(
        "Cores",
        """\
The load of table 1, shared out among processes that share a store: on one SQLite file, whose writers take turns, and on
one PostgreSQL. With fewer cores than processes, load and database need, they take time from each other, and the ratios
are lower than they would be otherwise.""",
        replicas.CoresDose,
        replicas.run_cores,
    ),
    7: Table(
        "Replicas on one PostgreSQL",
        """\
As in table 6, with up to three replicas; and PostgreSQL by itself, fed through some connections by a program that
stores and decides webhooks and does nothing else, from a core of its own: where that keeps PostgreSQL's core busy, no
number of replicas can do more. A replica's CPU time per webhook divided by PostgreSQL's is how many replicas, each with
a core to itself, one core of PostgreSQL keeps up with.""",
        replicas.Dose,
        replicas.run,
    ),
}
